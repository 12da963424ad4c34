"""Ids far apart, negative, and at the ends of bigint: what is compared and copied costs what the rows cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from outhaul.cdc_reader.operate.exporter.audit import Audit
from outhaul.cdc_reader.operate.pruning.outbox_table import OutboxTable
from outhaul.cdc_reader.operate.pruning.prune import PruneRequest, prune
from outhaul.cdc_reader.outbox import compare, id_ranges
from outhaul.cdc_reader.outbox.heal import heal, verify
from outhaul.cdc_reader.outbox.id_ranges import Scope
from outhaul.cdc_reader.outbox.rows import Wanted, batches
from outhaul.cdc_reader.outbox.snapshot import behind_the_slot, now
from outhaul.cdc_reader.outbox.table_shape import describe
from outhaul.cdc_reader.postgres.query import connect
from outhaul.sink.batch import decode
from outhaul.sink.settings import load_from
from tests.conftest import until

if TYPE_CHECKING:
    from outhaul.cdc_reader.outbox.compare import Compared
    from outhaul.cdc_reader.outbox.heal import Healed, Tally
    from tests.conftest import World

LEAST, GREATEST = -(1 << 63), (1 << 63) - 1
FAR = [
    LEAST, LEAST + 1, -(1 << 40), -65_536, -1, 0, 1, 65_536, 5_135_169_186_007_355_493, 7_234_567_890_123_456_789,
    GREATEST - 1, GREATEST,
]  # fmt: skip

pytestmark = pytest.mark.timeout(180)


def insert(world: World, ids: list[int]) -> None:
    world.conn.execute(
        "INSERT INTO outbox (id, event_type, environment, event_context) "
        "SELECT id, 'far', 'test', '{}' FROM unnest(%s::bigint[]) AS id",
        [ids],
    )


def forget(world: World, condition: str) -> None:
    world.clickhouse.command("SYSTEM START MERGES event_log")
    world.clickhouse.command(f"ALTER TABLE event_log DELETE WHERE {condition} SETTINGS mutations_sync = 2")


def checked(world: World, ranges: list[Compared] | None = None) -> Tally:
    with behind_the_slot(world.settings.streams(), within_s=60) as line:
        return verify(
            world.outbox, line, Scope(deep=True), lambda found, _last: None if ranges is None else ranges.append(found)
        )


def copied(world: World) -> Healed:
    with behind_the_slot(world.settings.streams(), within_s=60) as line:
        return heal(world.outbox, world.stream, line, Scope(), give_up_s=60)


def stored(world: World) -> list[int]:
    return [row[0] for row in world.clickhouse.rows("SELECT id FROM event_log ORDER BY id")]


def test_rows_from_end_to_end_of_bigint_are_compared_in_one_range_and_each_difference_is_named(running: World) -> None:
    insert(running, FAR)
    until(lambda: stored(running) == FAR, what="the stream has brought them")
    ranges: list[Compared] = []
    tally = checked(running, ranges)
    assert (tally.rows, tally.agrees, len(ranges)) == (len(FAR), True, 1)
    gone, beyond = [LEAST, -1, GREATEST], [-65_536, 0, 5_135_169_186_007_355_493]
    forget(running, f"id IN ({', '.join(map(str, gone))})")
    running.conn.execute("DELETE FROM outbox WHERE id = ANY(%s)", [beyond])
    tally = checked(running)
    assert (tally.ids["missing"], tally.ids["extra"]) == (gone, beyond)
    assert copied(running).stored == len(gone)
    assert copied(running).stored == 0
    assert stored(running) == FAR


def test_rows_with_such_ids_are_copied_once_each_under_positions_of_their_own(running: World) -> None:
    insert(running, FAR)
    until(lambda: stored(running) == FAR, what="the stream has brought them")
    forget(running, "1")
    assert copied(running).stored == len(FAR)
    assert copied(running).stored == 0
    assert stored(running) == FAR
    assert running.ch("SELECT uniqExact(cdc_lsn, cdc_ordinal) FROM event_log") == len(FAR)
    assert running.ch("SELECT countIf(cdc_ordinal != reinterpretAsUInt64(id)) FROM event_log") == 0
    with (
        connect(running.dsn) as conn,
    ):
        table = OutboxTable(conn, running.outbox, dry_run=False)
        report = prune(table, running.clickhouse, running.outbox, PruneRequest(-60.0), lambda: False)
    assert (report.removed, report.lacking) == (len(FAR), 0)


def test_many_rows_in_a_gap_of_the_outbox_are_read_in_parts(running: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_ranges, "RANGE_ROWS", 64)
    monkeypatch.setattr(compare, "_MAX_ROWS", 256)
    ids = [n * n * n * 1_000_003 for n in range(-1000, 1000)]
    insert(running, ids)
    until(lambda: len(stored(running)) == len(ids), what="the stream has brought them")
    running.conn.execute("DELETE FROM outbox WHERE id NOT IN (%s, %s)", [ids[0], ids[-1]])
    ranges: list[Compared] = []
    tally = checked(running, ranges)
    assert tally.extra == len(ids) - 2
    assert max(len(found.extra) for found in ranges) <= 256
    assert [found for one in ranges for found in one.extra.tolist()] == ids[1:-1]


def test_the_audit_comes_round_to_every_row_and_keeps_what_differs(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(id_ranges, "RANGE_ROWS", 10)
    ids = [-(1 << 62) + n * (1 << 55) for n in range(200)]
    insert(running, ids)
    until(lambda: len(stored(running)) == len(ids), what="the stream has brought them")
    audit = Audit(running.settings)
    missing = [ids[0], ids[7], ids[105], ids[199]]
    forget(running, f"id IN ({', '.join(map(str, missing))})")

    def figure(name: str) -> float:
        families = {family.name: family for family in audit.run_pass()}
        return float(families[f"outhaul_{name}"].samples[0].value)

    passes = [figure("audit_missing_events") for _ in range(6)]
    assert passes[0] == 3.0
    assert passes[-1] == 4.0
    assert figure("audit_compared_events") < len(ids)
    assert copied(running).stored == 4
    assert figure("audit_missing_events") == 0


def test_copies_are_cut_by_the_bytes_that_postgres_sends(world: World) -> None:
    settings = load_from(world.env | {"OUTHAUL_BATCH_MAX_BYTES": "12MiB"})
    outbox = settings.outboxes()[0]
    world.conn.execute(
        "INSERT INTO outbox (event_type, environment, event_context) "
        "SELECT 'large', 'test', jsonb_build_object('n', repeat('x', 1000000)) FROM generate_series(1, 50)"
    )
    with now(settings) as line, line.connect() as conn:
        shape = describe(conn, outbox, settings.undivided)
        ids = id_ranges.TableSide(shape, Scope(), {}).rows(conn, 1, 100).ids
        made = [
            one.batch
            for whole in (True, False)
            for one in batches(conn, shape, Wanted(ids, whole), line.copied_lsn, outbox, outbox.clickhouse_table)
        ]
    rows = [decode(batch.payload) for batch in made]
    assert sum(one.num_rows for one in rows) == 2 * 50
    assert {one.num_rows for one in rows} == {15, 5}
    assert max(pa.RecordBatch.get_total_buffer_size(one) for one in rows) < 16 << 20
    assert max(len(batch.payload) for batch in made) < 1 << 20
