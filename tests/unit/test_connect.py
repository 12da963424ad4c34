"""Which server the reader may stream from, and the doctor's findings about a standby."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from outhaul.cdc_reader.operate.doctor import standby_checks
from outhaul.cdc_reader.operate.doctor.finding import State
from outhaul.cdc_reader.operate.doctor.standby_checks import Primary, Standby, StandbyFacts
from outhaul.cdc_reader.postgres.connect import (
    check_one_host,
    check_same_cluster,
    check_standby_version,
    name_stream_dsn,
)
from outhaul.sink.errors import Exit, FatalError, TransientError
from outhaul.sink.settings import Settings
from tests.unit.test_doctor_postgres import SERVER

if TYPE_CHECKING:
    from outhaul.cdc_reader.operate.doctor.finding import Finding

ONE = Settings()
OTHER = Settings(stream_dsn=SecretStr("postgresql://standby/app"))
STANDBY = Standby(
    is_standby=True, system="7", feedback=True, primary_slot="standby", receives=True, is_paused=False, end="0/1000",
    has_slot=True,
)  # fmt: skip
PRIMARY = Primary(system="7", end="0/2000", role="reader", may_log=True, is_fed_back=True, left_over=[])


def test_the_slot_is_on_the_primary_unless_another_address_is_given() -> None:
    assert ONE.slot_dsn == ONE.postgres_dsn.get_secret_value()
    assert OTHER.slot_dsn == "postgresql://standby/app"


def test_a_standby_decodes_from_postgres_16_on() -> None:
    check_standby_version(160000, is_standby=True)
    check_standby_version(140000, is_standby=False)
    with pytest.raises(FatalError, match="a standby of Postgres 15 cannot decode") as caught:
        check_standby_version(159999, is_standby=True)
    assert caught.value.exit_code is Exit.WAL_LEVEL


def test_another_cluster_is_refused() -> None:
    check_same_cluster("7", "7")
    with pytest.raises(FatalError, match=r"another cluster \(system 8\)") as caught:
        check_same_cluster("7", "8")
    assert caught.value.exit_code is Exit.SETTINGS


def test_the_address_names_one_server_and_that_of_the_primary_may_name_many() -> None:
    many = "postgresql://one,two/app"
    check_one_host(OTHER)
    check_one_host(Settings(postgres_dsn=SecretStr(many)))
    with pytest.raises(FatalError, match="names several servers") as caught:
        check_one_host(Settings(stream_dsn=SecretStr(many)))
    assert caught.value.exit_code is Exit.SETTINGS
    with pytest.raises(FatalError, match="the DSN is malformed") as caught:
        check_one_host(Settings(stream_dsn=SecretStr("postgresql://[/app")))
    assert "OUTHAUL_STREAM_DSN" in caught.value.todo


def test_an_error_names_the_setting_that_leads_to_the_server() -> None:
    error = TransientError("no answer", todo="Check OUTHAUL_POSTGRES_DSN", exit_code=Exit.POSTGRES_UNREACHABLE)
    assert name_stream_dsn(error, ONE) is error
    other = name_stream_dsn(error, OTHER)
    assert (type(other), other.todo, other.exit_code) == (TransientError, "Check OUTHAUL_STREAM_DSN", error.exit_code)
    silent = TransientError("ClickHouse does not answer")
    assert name_stream_dsn(silent, OTHER) is silent


def judged(standby_: Standby = STANDBY, primary: Primary = PRIMARY) -> dict[str, Finding]:
    return {found.check: found for found in standby_checks.judge(StandbyFacts(standby_, primary, SERVER), OTHER)}


def test_a_standby_that_follows_and_sends_feedback_has_nothing_to_fix() -> None:
    assert {found.state for found in judged().values()} == {State.PASS}


@pytest.mark.parametrize(
    ("changes", "check", "state"),
    [
        ({"system": "8"}, "same cluster", State.FAIL),
        ({"feedback": False}, "hot_standby_feedback", State.FAIL),
        ({"primary_slot": ""}, "primary_slot_name", State.WARN),
        ({"is_paused": True}, "replay", State.FAIL),
        ({"receives": False}, "replay", State.WARN),
        ({"end": "0/0"}, "replay", State.PASS),
    ],
)
def test_what_ends_or_holds_up_a_standby_is_named(changes: dict[str, Any], check: str, state: State) -> None:
    found = judged(replace(STANDBY, **changes))[check]
    assert found.state is state
    assert bool(found.fix) is (state is not State.PASS)


@pytest.mark.parametrize(
    ("changes", "check", "state"),
    [
        ({"end": "1/0"}, "replay", State.WARN),
        ({"is_fed_back": None}, "primary_slot_name", State.WARN),
        ({"is_fed_back": False}, "primary_slot_name", State.WARN),
        ({"may_log": False}, "pg_log_standby_snapshot", State.WARN),
        ({"left_over": ["outhaul"]}, "no slot on the primary", State.FAIL),
    ],
)
def test_what_the_primary_lacks_or_has_too_much_is_named(changes: dict[str, Any], check: str, state: State) -> None:
    assert judged(primary=replace(PRIMARY, **changes))[check].state is state


def test_a_standby_that_became_the_primary_is_asked_no_more() -> None:
    found = judged(replace(STANDBY, is_standby=False, feedback=False, receives=False))
    assert found["role"].state is State.PASS
    assert "hot_standby_feedback" not in found
