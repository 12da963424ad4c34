"""The doctor's findings about Postgres, each on both sides of its bound."""

from dataclasses import replace
from typing import Any

import pytest

from outhaul.cdc_reader.operate.doctor import postgres_encryption, postgres_role, postgres_settings, publication_checks
from outhaul.cdc_reader.operate.doctor.finding import Finding, State
from outhaul.cdc_reader.postgres.slot_view import SlotFacts
from outhaul.sink.errors import TransientError
from outhaul.sink.settings import Settings

SETTINGS = Settings()
STREAM, OUTBOX = SETTINGS.undivided, SETTINGS.outboxes()[0]
SERVER = postgres_settings.ServerSettings(
    version=180001,
    wal_level="logical",
    effective_wal_level=None,
    max_slots=10,
    used_slots=1,
    max_senders=10,
    used_senders=1,
    wal_sender_timeout_s=60.0,
    slot_keep_mb=51200,
    idle_slot_timeout_s=0,
    commit_timestamps=False,
)
PUBLICATION: dict[str, Any] = {
    "pubinsert": True,
    "more_than_inserts": False,
    "filters": [],
    "puballtables": False,
    "pubviaroot": True,
    "via_root": True,
    "lacking": [],
    "others": [],
}
SLOT = SlotFacts(
    name="outhaul",
    plugin="pgoutput",
    slot_type="logical",
    database="app",
    here=True,
    active_pid=42,
    confirmed=None,
    retained_bytes=1000,
    wal_status="reserved",
    invalidation_reason=None,
)
PROSPECT = publication_checks.Prospect(safe_wal_size=None, behind_bytes=10, failover=True)
TABLE = publication_checks.OutboxFacts("r", "p", 0, [])


def states(findings: Any) -> dict[str, State]:
    return {finding.check: finding.state for finding in findings}


def slot(*, version: int = 180000, **changes: Any) -> dict[str, Finding]:
    prospect = {name: value for name, value in changes.items() if hasattr(PROSPECT, name)}
    facts = {name: value for name, value in changes.items() if name not in prospect}
    findings = publication_checks.slot(STREAM, replace(SLOT, **facts), replace(PROSPECT, **prospect), version=version)
    return {finding.check: finding for finding in findings}


def publication(table: publication_checks.OutboxFacts = TABLE, **changes: Any) -> dict[str, Finding]:
    findings = publication_checks.publication(STREAM, PUBLICATION | changes, table)
    return {finding.check: finding for finding in findings}


def test_a_server_as_it_should_be_has_nothing_to_mend() -> None:
    findings = list(postgres_settings.judge(SERVER, SETTINGS, has_slot=True, streams=True))
    assert set(states(findings).values()) == {State.PASS}
    assert len(findings) == 8


@pytest.mark.parametrize(
    ("number", "state"),
    [(130012, State.FAIL), (140000, State.PASS), (180006, State.PASS), (190000, State.WARN)],
)
def test_postgres_14_to_18_are_what_outhaul_was_tried_with(number: int, state: State) -> None:
    assert postgres_settings.version(number).state is state


@pytest.mark.parametrize(
    ("level", "effective", "state"),
    [
        ("logical", None, State.PASS),
        ("logical", "logical", State.PASS),
        ("replica", "logical", State.PASS),
        ("replica", "replica", State.WARN),
        ("replica", None, State.FAIL),
        ("minimal", None, State.FAIL),
        ("minimal", "minimal", State.FAIL),
    ],
)
def test_wal_must_be_logical_by_itself_or_in_effect(level: str, effective: str | None, state: State) -> None:
    found = postgres_settings.wal_level(level, effective)
    assert found.state is state
    assert ("wal_level = 'logical'" in found.fix) is (state is not State.PASS)


@pytest.mark.parametrize(
    ("used", "ours", "state"), [(9, False, State.PASS), (10, True, State.WARN), (10, False, State.FAIL)]
)
def test_the_last_free_slot_and_sender_matter_while_the_slot_does_not_exist(
    used: int, ours: bool, state: State
) -> None:
    slots = postgres_settings.slots(used, 10, has_slot=ours)
    senders = postgres_settings.senders(used, 10, streams=ours)
    assert (slots.state, senders.state) == (state, state)
    assert slots.found.startswith(f"{10 - used} of 10 free")
    if state is not State.PASS:
        assert "max_replication_slots = 20" in slots.fix
        assert "max_wal_senders = 20" in senders.fix


@pytest.mark.parametrize(
    ("timeout_s", "interval_s", "state"),
    [
        (60, 1, State.PASS),
        (5, 1, State.PASS),
        (4.9, 1, State.WARN),
        (0, 1, State.WARN),
        (39, 10, State.WARN),
        (40, 10, State.PASS),
    ],
)
def test_a_sender_timeout_leaves_time_for_four_answers(timeout_s: float, interval_s: float, state: State) -> None:
    found = postgres_settings.sender_timeout(timeout_s, Settings(status_interval_s=interval_s))
    assert found.state is state
    assert bool(found.fix) is (state is State.WARN)


def test_a_slot_without_a_limit_may_fill_the_disk_and_one_that_times_out_may_be_lost() -> None:
    assert postgres_settings.slot_keep(-1).state is State.WARN
    assert postgres_settings.slot_keep(1024).state is State.PASS
    assert postgres_settings.idle_slot_timeout(60).state is State.WARN
    older = list(
        postgres_settings.judge(replace(SERVER, idle_slot_timeout_s=None), SETTINGS, has_slot=True, streams=True)
    )
    assert "idle_replication_slot_timeout" not in states(older)


def test_commit_timestamps_are_reported_without_a_verdict() -> None:
    for is_on in (True, False):
        findings = postgres_settings.judge(
            replace(SERVER, commit_timestamps=is_on), SETTINGS, has_slot=True, streams=True
        )
        assert states(findings)["track_commit_timestamp"] is State.PASS


def test_a_role_has_what_the_reader_needs_and_no_more() -> None:
    plain = postgres_role.Role("reader", superuser=False, sees_sessions=True, may_select=True)

    def judged(one: postgres_role.Role, refused: TransientError | None = None) -> dict[str, State]:
        return states(postgres_role.judge(one, OUTBOX, refused))

    assert set(judged(plain).values()) == {State.PASS}
    assert judged(replace(plain, superuser=True)) == {
        "replication connection": State.PASS,
        "SELECT": State.PASS,
        "least privilege": State.WARN,
        "other sessions": State.PASS,
    }
    blind = {one.check: one.found for one in postgres_role.judge(replace(plain, sees_sessions=False), OUTBOX, None)}
    assert "GRANT pg_read_all_stats TO reader" in blind["other sessions"]
    assert judged(replace(plain, may_select=False))["SELECT"] is State.WARN
    assert "SELECT" not in judged(replace(plain, may_select=None))
    assert judged(plain, TransientError("no pg_hba.conf entry"))["replication connection"] is State.FAIL


@pytest.mark.parametrize(
    ("address", "is_encrypted", "mode", "state"),
    [
        ("", False, "prefer", State.PASS),
        ("127.0.0.1", False, "prefer", State.PASS),
        ("::1", False, "disable", State.PASS),
        ("10.0.0.7", False, "prefer", State.WARN),
        ("fe80::1%eth0", False, "prefer", State.WARN),
        ("10.0.0.7", True, "require", State.WARN),
        ("10.0.0.7", True, "verify-full", State.PASS),
    ],
)
def test_what_leaves_the_machine_is_to_be_encrypted_and_checked(
    address: str, is_encrypted: bool, mode: str, state: State
) -> None:
    assert postgres_encryption.judge(postgres_encryption.Encryption(address, is_encrypted, mode)).state is state


@pytest.mark.parametrize(
    ("table", "state"),
    [
        (None, State.FAIL),
        (TABLE, State.PASS),
        (publication_checks.OutboxFacts("p", "p", 3, []), State.PASS),
        (publication_checks.OutboxFacts("v", "p", 0, []), State.FAIL),
        (publication_checks.OutboxFacts("r", "u", 0, []), State.FAIL),
    ],
)
def test_an_outbox_is_a_table_whose_inserts_are_in_the_wal(
    table: publication_checks.OutboxFacts | None, state: State
) -> None:
    (found,) = publication_checks.outbox(table, "public.outbox")
    assert found.state is state


def test_a_publication_has_the_inserts_of_the_outbox_and_those_alone() -> None:
    assert {finding.state for finding in publication().values()} == {State.PASS}
    (found,) = publication_checks.publication(STREAM, None, TABLE)
    assert (found.state, found.fix) == (State.FAIL, "Create it with `outhaul setup`")
    assert publication(lacking=["public.outbox"])["publication"].state is State.FAIL
    assert publication(pubinsert=False)["publication"].state is State.FAIL
    assert publication(others=["public.users"])["publication"].state is State.FAIL
    assert publication(more_than_inserts=True)["insert only"].state is State.WARN
    assert publication(puballtables=True)["all tables"].state is State.WARN


def test_partitions_are_captured_through_the_root() -> None:
    table = publication_checks.OutboxFacts("p", "p", 12, [])
    assert publication(table)["partitions"].found == "all 12 are captured, and new ones will be"
    hidden = publication(table, pubviaroot=False, via_root=False)["partitions"]
    assert hidden.state is State.FAIL
    assert "publish_via_partition_root = true" in hidden.fix
    unlogged = publication(publication_checks.OutboxFacts("p", "p", 12, ["outbox_7"]))["partitions"]
    assert (unlogged.state, "outbox_7" in unlogged.found) == (State.FAIL, True)
    assert publication(pubviaroot=False)["via root"].state is State.WARN


def test_a_slot_that_streams_has_nothing_to_mend() -> None:
    assert {finding.state for finding in slot().values()} == {State.PASS}


@pytest.mark.parametrize(
    ("changes", "check", "state"),
    [
        ({"plugin": "test_decoding"}, "slot", State.FAIL),
        ({"slot_type": "physical", "plugin": None}, "slot", State.FAIL),
        ({"here": False, "database": "other"}, "slot", State.FAIL),
        ({"wal_status": "lost"}, "slot", State.FAIL),
        ({"wal_status": "lost"}, "slot WAL", State.FAIL),
        ({"wal_status": "unreserved"}, "slot WAL", State.FAIL),
        ({"wal_status": "extended"}, "slot WAL", State.WARN),
        ({"safe_wal_size": 2000}, "slot WAL", State.PASS),
        ({"safe_wal_size": 999}, "slot WAL", State.WARN),
        ({"invalidation_reason": "idle_timeout"}, "slot", State.FAIL),
        ({"active_pid": None}, "slot in use", State.WARN),
        ({"synced": True, "of_standby": True}, "slot", State.FAIL),
        ({"synced": True}, "slot", State.PASS),
        ({"of_standby": True, "failover": False}, "slot failover", State.PASS),
        ({"of_standby": True, "invalidation_reason": "rows_removed"}, "slot", State.FAIL),
        ({"failover": False}, "slot failover", State.WARN),
    ],
)
def test_a_slot_that_is_lost_or_may_be_is_named(changes: dict[str, Any], check: str, state: State) -> None:
    found = slot(**changes)[check]
    assert found.state is state
    assert bool(found.fix) is (state is not State.PASS)


def test_a_missing_slot_is_made_by_setup_and_failover_is_asked_of_17_and_later() -> None:
    (found,) = publication_checks.slot(STREAM, None, None, version=180000)
    assert found.state is State.FAIL
    assert "outhaul setup" in found.fix
    assert "slot failover" in slot(version=170000)
    assert "slot failover" not in slot(version=160004, failover=None)
