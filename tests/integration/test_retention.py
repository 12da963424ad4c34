"""A TTL on the event table: what it may have removed is named, and neither audit nor prune reports it as lost."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from outhaul.cdc_reader.operate.doctor.finding import State
from outhaul.cdc_reader.operate.exporter.audit import Audit
from outhaul.sink.retention import retention_of
from tests.acceptance.commands import outhaul_here
from tests.acceptance.test_prune import forget, insert_old
from tests.conftest import until
from tests.integration.doctor_findings import sections

if TYPE_CHECKING:
    from tests.conftest import World


def with_ttl(world: World, ttl: str) -> None:
    world.clickhouse.command(f"ALTER TABLE event_log MODIFY TTL {ttl} SETTINGS materialize_ttl_after_modify = 0")


@pytest.mark.parametrize(
    ("ttl", "days"),
    [
        ("toDateTime(event_date_time) + INTERVAL 4 DAY", 4),
        ("toDate(event_date_time) + INTERVAL 4 DAY", 4),
        ("toDateTime(event_date_time) + INTERVAL 4 DAY DELETE, toDate(event_date_time) RECOMPRESS CODEC(ZSTD(9))", 4),
        ("toDateTime(cdc_ingested_at) + INTERVAL 4 DAY", None),
        ("toDateTime(event_date_time) + INTERVAL 4 DAY DELETE WHERE event_type = 'x'", None),
    ],
)
def test_the_server_says_which_events_may_be_gone(world: World, ttl: str, days: int | None) -> None:
    with_ttl(world, ttl)
    found = retention_of(world.clickhouse, "event_log")
    assert found is not None
    assert "4" in found.rule
    if days is None:
        assert found.before is None
    else:
        assert found.before is not None
        age = datetime.now(UTC) - found.before
        # Within an hour of the rule, which may count whole days.
        assert timedelta(days=days - 1, hours=-2) < age <= timedelta(days=days, minutes=1)


def test_without_a_ttl_all_events_stay(world: World) -> None:
    assert retention_of(world.clickhouse, "event_log") is None


def test_audit_and_prune_leave_out_what_a_ttl_has_removed_and_say_so(running: World) -> None:
    insert_old(running, 30)
    running.insert(5)
    until(lambda: running.stored() == 35, what="all is stored")
    with_ttl(running, "toDateTime(event_date_time) + INTERVAL 1 DAY")
    forget(running, "event_type = 'old'")
    # One of another age, which no TTL has removed.
    forget(running, "id = 33")

    def figures() -> dict[str, float]:
        return {one.name: one.samples[0].value for one in Audit(running.settings).run_pass() if one.samples}

    found = figures()
    assert found["outhaul_audit_missing_events"] == 1
    assert found["outhaul_audit_compared_events"] == 5
    assert found["outhaul_audit_since_timestamp_seconds"] > 0
    code, out, _ = outhaul_here(running.env, "prune", "--older-than", "7d", "--yes", "--json")
    report = json.loads(out.splitlines()[-1])
    assert (code, report["removed"], report["lacking"], report["expired"]) == (0, 0, 0, 30)
    assert "event_date_time" in report["ttl"]
    _, text, _ = outhaul_here(running.env, "prune", "--older-than", "7d", "--yes")
    assert "30 old rows stay, because ClickHouse removes events of their time by toDateTime(event_date_time)" in text
    finding = sections(running.settings)["ClickHouse"]["TTL"]
    assert finding.state is State.WARN
    assert "toDateTime(event_date_time)" in finding.found
