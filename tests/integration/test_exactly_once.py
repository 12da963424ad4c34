"""Token, positions and fence against the real engine: each of them alone keeps a row from being stored twice."""

import re
import threading
from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

from outhaul.cdc_reader.session.recovery import ask_stored_positions, recover
from outhaul.sink import fence, sql
from outhaul.sink.batch import Batch, Message, Packer
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.clickhouse_errors import POISON, THROW_IF, TRANSIENT
from outhaul.sink.errors import Exit, FatalError, PipelineError, PoisonError, TransientError
from outhaul.sink.fence import EpochOverError, guard, newest_epoch, raise_epoch
from outhaul.sink.insert import _WITHIN_TIMES, Target, contents_of, insert, parameters
from outhaul.sink.position import History, Lsn, Position
from outhaul.sink.quarantine import dead_letter
from tests.conftest import World, until
from tests.unit.batches import pack

HISTORY = History("7", 1)
MONTH_US = 31 * 86400 * 1_000_000


def field(name: str, kind: pa.DataType, clickhouse: str) -> pa.Field:
    return pa.field(name, kind, metadata={"clickhouse": clickhouse})


SCHEMA = pa.schema(
    [
        field("id", pa.int64(), "Int64"),
        field("event_type", pa.binary(), "Nullable(String)"),
        field("event_date_time", pa.timestamp("us", "UTC"), "Nullable(DateTime64(6, 'UTC'))"),
        field("environment", pa.binary(), "Nullable(String)"),
        field("event_context", pa.binary(), "Nullable(String)"),
        field("cdc_lsn", pa.uint64(), "UInt64"),
        field("cdc_ordinal", pa.uint64(), "UInt64"),
        field("cdc_committed_at", pa.timestamp("us", "UTC"), "DateTime64(6, 'UTC')"),
    ]
)


def rows(count: int, lsn: int = 500, months: int = 3) -> pa.RecordBatch:
    columns = [
        pa.array(range(count), pa.int64()),
        pa.array([b"x"] * count),
        pa.array([(n % months) * MONTH_US for n in range(count)], SCHEMA.field("event_date_time").type),
        pa.array([b"test"] * count),
        pa.array([b"{}"] * count),
        pa.array([lsn] * count, pa.uint64()),
        pa.array(range(count), pa.uint64()),
        pa.array([0] * count, SCHEMA.field("cdc_committed_at").type),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def batch_of(world: World, records: pa.RecordBatch) -> Batch:
    lsn, ordinal = records.column("cdc_lsn"), records.column("cdc_ordinal")
    first, last = (Position(Lsn(lsn[i].as_py()), ordinal[i].as_py()) for i in (0, -1))
    return pack(world.settings.source, "event_log", records, first, last)


def message_of(world: World, batch: Batch, owner: str = "me") -> Message:
    return Message.of(batch, source=world.settings.source, epoch=1, owner=owner, sequence=0, attempt=0)


def own(world: World, owner: str = "me", epoch: int = 1) -> None:
    raise_epoch(world.clickhouse, world.stream, HISTORY, Lsn(0), epoch, owner)


def send(world: World, batch: Batch, *, owner: str = "me", token: str | None = None) -> None:
    message = message_of(world, batch, owner)
    if token:
        message = replace(message, token=token)
    put(world, message, batch)


def put(world: World, message: Message, batch: Batch, *, clickhouse: ClickHouse | None = None) -> None:
    target = Target("event_log", "event_log_dead_letters", "event_log_view_gaps", guard(world.settings), timeout_s=30)
    insert(clickhouse or world.clickhouse, message, batch.payload, target)


def refuse(world: World, batch: Batch, *, token: str | None = None) -> None:
    """Send a batch of which another batch has stored rows."""
    with pytest.raises(EpochOverError, match="other tasks have stored parts"):
        send(world, batch, token=token)


def test_a_batch_sent_twice_is_stored_once(world: World) -> None:
    own(world)
    batch = batch_of(world, rows(300, months=12))
    for _ in range(3):
        send(world, batch)
    assert world.stored() == 300
    assert world.ch("SELECT uniqExact(toYYYYMM(event_date_time)) FROM event_log") == 12


@pytest.mark.parametrize("kept", ["id % 12 != 5", "0"], ids=["a month is missing", "all is missing"])
def test_a_token_of_rows_that_a_failure_took_does_not_pass_for_them(world: World, kept: str) -> None:
    own(world)
    batch = batch_of(world, rows(300, months=12))
    send(world, batch)
    # What ClickHouse is like when it fails between noting the token of a month and putting its part in place.
    world.clickhouse.command("SYSTEM START MERGES event_log")
    world.clickhouse.command(f"DELETE FROM event_log WHERE NOT ({kept})")
    assert world.stored() < 300
    target = Target("event_log", "event_log_dead_letters", "event_log_view_gaps", guard(world.settings), timeout_s=30)
    with pytest.raises(EpochOverError):
        insert(world.clickhouse, message_of(world, batch), batch.payload, target, again=True)
    # The next reader sends the rows that are missing; it may cut the same batch.
    own(world, "another", epoch=2)
    missing = batch_of(
        world, rows(300, months=12).filter(pa.array([not (kept != "0" and n % 12 != 5) for n in range(300)]))
    )
    message = replace(message_of(world, missing, "another"), epoch=2)
    for _ in range(2):
        put(world, message, missing)
        assert world.stored() == 300
    world.clickhouse.command("OPTIMIZE TABLE event_log FINAL")
    assert world.stored() == 300


def test_a_clickhouse_that_was_restarted_takes_no_insert_of_an_epoch_from_before(world: World) -> None:
    own(world)
    batch = batch_of(world, rows(10))
    # What a restart does to a table in memory.
    world.clickhouse.command("TRUNCATE TABLE event_log_owners")
    with pytest.raises(FatalError, match="ClickHouse was restarted") as caught:
        send(world, batch)
    assert caught.value.code == THROW_IF
    own(world, "next", epoch=2)
    put(world, replace(message_of(world, batch, "next"), epoch=2), batch)
    assert world.stored() == 10


def test_a_batch_of_many_pieces_is_one_part_a_month_and_is_stored_once(world: World) -> None:
    own(world)
    whole = rows(3000, months=2)
    packer = Packer(world.settings.source, "event_log", whole.schema)
    for start in range(0, 3000, 500):
        packer.add(whole.slice(start, 500), Position(Lsn(500), start), Position(Lsn(500), start + 499))
    batch = packer.finish()
    for _ in range(2):
        send(world, batch)
    assert world.stored() == 3000
    # Another token, so it is the positions that keep it out.
    refuse(world, batch, token="0" * 32)
    assert world.stored() == 3000
    query = "SELECT count() FROM system.parts WHERE active AND database = currentDatabase() AND table = 'event_log'"
    assert world.ch(query) == 2


def test_a_batch_sent_twice_at_the_same_time_is_stored_once(world: World) -> None:
    own(world)
    batch = batch_of(world, rows(20_000, months=12))
    errors: list[PipelineError] = []

    def run() -> None:
        clickhouse = ClickHouse(world.env["OUTHAUL_CLICKHOUSE_URL"], timeout_s=30)
        try:
            put(world, message_of(world, batch), batch, clickhouse=clickhouse)
        except PipelineError as error:
            errors.append(error)
        clickhouse.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert world.stored() == 20_000


def test_a_batch_whose_token_is_forgotten_is_still_stored_once(world: World) -> None:
    own(world)
    batch = batch_of(world, rows(300))
    send(world, batch)
    refuse(world, batch, token="another")
    assert world.stored() == 300


def test_a_batch_half_of_whose_partitions_landed_is_completed(world: World) -> None:
    own(world)
    records = rows(300)
    whole = batch_of(world, records)
    half = batch_of(world, records.filter(pa.array([n % 3 == 0 for n in range(300)])))
    send(world, half)
    # Perhaps the other insert still runs: a new session waits for it, and then sends what is missing.
    refuse(world, whole)
    assert world.stored() == 100
    held = recover(world.clickhouse, world.stream, HISTORY, Lsn(500), "next", lambda _seconds: None).held["event_log"]
    missing = held.missing(np.full(300, 500, np.uint64), np.arange(300, dtype=np.uint64))
    batch = batch_of(world, records.filter(pa.array(missing)))
    put(world, replace(message_of(world, batch, "next"), epoch=2), batch)
    assert world.stored() == 300


@pytest.mark.parametrize("at", ["1900-01-01T00:00:00+00:00", "2299-12-31T23:59:59+00:00", None])
def test_a_forgotten_token_is_no_matter_at_the_ends_of_time(world: World, at: str | None) -> None:
    own(world)
    time = pa.array([datetime.fromisoformat(at) if at else None] * 3, SCHEMA.field("event_date_time").type)
    batch = batch_of(world, rows(3).set_column(2, SCHEMA.field("event_date_time"), time))
    send(world, batch)
    refuse(world, batch, token="another")
    assert world.stored() == 3


def test_a_forgotten_token_is_no_matter_in_a_table_of_whole_seconds(world: World) -> None:
    own(world)
    text = str(world.clickhouse.rows("SHOW CREATE TABLE event_log")[0][0])
    world.clickhouse.command("DROP TABLE event_log SYNC")
    coarse = text.replace("`event_date_time` DateTime64(6, 'UTC')", "`event_date_time` DateTime('UTC')")
    assert coarse != text
    world.clickhouse.command(coarse)
    time = pa.array([n * 333_333 for n in range(9)], SCHEMA.field("event_date_time").type)
    batch = batch_of(world, rows(9).set_column(2, SCHEMA.field("event_date_time"), time))
    send(world, batch)
    refuse(world, batch, token="another")
    assert world.stored() == 9


def test_pieces_of_one_transaction_are_told_apart_by_their_ordinals(world: World) -> None:
    own(world)
    records = rows(300)
    for start in (0, 100, 200, 100):
        send(world, batch_of(world, records.slice(start, 100)), token=f"piece {start}")
    assert world.stored() == 300


def test_what_is_asked_for_is_read_from_few_parts(world: World) -> None:
    """The question costs little beside a table of many parts: of those of other times not even an index is read."""
    own(world)
    for month in range(24):
        time = pa.array([month * MONTH_US] * 10, SCHEMA.field("event_date_time").type)
        records = rows(10, lsn=500 + month).set_column(2, SCHEMA.field("event_date_time"), time)
        send(world, batch_of(world, records))
    batch = batch_of(world, rows(10, lsn=900, months=1))
    contents = contents_of(batch.payload)
    question = sql.query(
        "leave_out_stored", stored=sql.query("stored_within", table="event_log", when=_WITHIN_TIMES, more="")
    )
    select = question[question.index("SELECT") : question.rindex(")")]
    bound = parameters(message_of(world, batch), contents)
    plan = "\n".join(line for (line,) in world.clickhouse.rows(f"EXPLAIN indexes = 1 {select}", parameters=bound))
    assert re.search(r"Min-?Max.*?Parts: 1/24", plan, re.DOTALL), plan


def test_what_is_stored_does_not_become_a_dead_letter_too(world: World) -> None:
    """Another task of the batch stored it, after the table was mended and before this one gave up on it."""
    own(world)
    records = rows(3)
    send(world, batch_of(world, records))
    dead = pa.concat_batches([dead_letter(records.slice(n, 1), "refused") for n in range(3)])
    batch = batch_of(world, dead)
    put(world, replace(message_of(world, batch), table="event_log_dead_letters"), batch)
    assert world.ch("SELECT count() FROM event_log_dead_letters") == 0


def test_a_forgotten_token_without_the_positions_would_repeat_rows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests above can fail: without looking at positions the same rows are stored again."""
    real = sql.query
    blind = lambda name, **values: "" if name == "refuse_stored" else real(name, **values)  # noqa: E731
    monkeypatch.setattr("outhaul.sink.insert.query", blind)
    own(world)
    batch = batch_of(world, rows(300))
    send(world, batch)
    send(world, batch, token="another")
    assert world.stored() == 600


def test_an_insert_of_an_older_owner_is_refused_by_clickhouse(world: World) -> None:
    own(world, "old", 1)
    batch = batch_of(world, rows(10))
    own(world, "new", 2)
    with pytest.raises(FatalError) as caught:
        send(world, batch, owner="old")
    assert caught.value.code == THROW_IF
    assert world.stored() == 0
    send(world, batch, owner="new")
    assert world.stored() == 10


def test_two_readers_that_raise_the_epoch_at_once_have_one_winner(world: World) -> None:
    own(world, "b", 5)
    with pytest.raises(TransientError):
        own(world, "a", 5)
    newest = newest_epoch(world.clickhouse, world.settings, world.stream.lane)
    assert newest is not None
    assert (newest.epoch, newest.owner) == (5, "b")


def test_recovery_waits_for_an_insert_that_is_still_running(world: World) -> None:
    own(world, "old", 1)
    mark = f"outhaul:{world.settings.source}"
    slow = ClickHouse(world.env["OUTHAUL_CLICKHOUSE_URL"], timeout_s=30)
    statement = (
        "INSERT INTO event_log (id, event_type, event_date_time, environment, event_context, cdc_source, cdc_lsn, "
        f"cdc_ordinal, cdc_committed_at) SELECT 1, 'x', '2026-01-01', 't', '{{}}', '{world.settings.source}', 600, "
        "sleepEachRow(0.5), '2026-01-01' FROM numbers(4)"
    )
    running = threading.Thread(
        target=slow.command,
        args=(statement,),
        kwargs={"settings": {"log_comment": mark, "max_block_size": 1, "max_insert_block_size": 1}},
    )
    running.start()
    count = "SELECT count() FROM system.processes WHERE Settings['log_comment'] = {mark:String}"
    until(lambda: world.clickhouse.rows(count, parameters={"mark": mark})[0][0], what="the old insert runs")
    waits: list[float] = []
    over = threading.Event()

    def wait(seconds: float) -> None:
        waits.append(seconds)
        over.wait(seconds)

    found = recover(world.clickhouse, world.stream, HISTORY, Lsn(500), "new", wait)
    assert waits, "recovery did not wait"
    assert not world.clickhouse.rows(count, parameters={"mark": mark})[0][0]
    assert found.epoch == 2
    assert not found.held["event_log"].missing(np.array([600], np.uint64), np.array([0], np.uint64))[0]
    running.join()
    slow.close()


@pytest.mark.thorough
def test_recovery_gives_up_on_an_insert_that_never_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def query(name: str, **values: object) -> str:
        return "SELECT serverUUID(), hostName(), 'older'" if name == "running_inserts" else sql.query(name, **values)

    monkeypatch.setattr(fence, "query", query)
    waits: list[float] = []
    with pytest.raises(TransientError, match="still running"):
        recover(world.clickhouse, world.stream, HISTORY, Lsn(0), "me", waits.append)
    assert sum(waits) == pytest.approx(world.settings.insert_timeout_s + 10, abs=1)


def test_recovery_asks_event_log_and_dead_letters_for_runs_of_positions(world: World) -> None:
    own(world)
    records = rows(100, lsn=700)
    kept = [n for n in range(100) if n not in (40, 41, 90)]
    send(world, batch_of(world, records.take(pa.array(kept))))
    world.clickhouse.command(
        "INSERT INTO event_log_dead_letters (row, reason, cdc_source, cdc_lsn, cdc_ordinal, cdc_committed_at) "
        f"VALUES ('{{}}', 'r', '{world.settings.source}', 700, 90, '2026-01-01'), "
        "('{}', 'r', 'someone_else', 700, 40, '2026-01-01')"
    )
    held = ask_stored_positions(world.clickhouse, world.stream, world.outbox, Lsn(700))
    assert list(zip(held.lsn.tolist(), held.first.tolist(), held.last.tolist(), strict=True)) == [
        (700, 0, 39),
        (700, 42, 99),
    ]
    assert ask_stored_positions(world.clickhouse, world.stream, world.outbox, Lsn(701)).rows == 0


def test_another_history_is_refused(world: World) -> None:
    own(world)
    with pytest.raises(FatalError) as caught:
        recover(world.clickhouse, world.stream, History("8", 1), Lsn(0), "me", lambda _: None)
    assert caught.value.exit_code == Exit.OTHER_HISTORY


def test_rows_that_clickhouse_cannot_take_are_poison(world: World) -> None:
    own(world)
    records = rows(3)
    bad = records.set_column(1, field("event_type", pa.binary(), "Nullable(String)"), pa.array([b"x", None, b"x"]))
    with pytest.raises(PoisonError):
        send(world, batch_of(world, bad))
    assert world.stored() == 0


def test_our_tables_of_codes_have_clickhouse_s_names(world: World) -> None:
    ours = TRANSIENT | POISON
    names = world.clickhouse.rows("SELECT number, errorCodeToName(number) FROM numbers(1100)")
    found = {row[0]: row[1] for row in names}
    assert {code: found[code] for code in ours} == ours


def test_times_at_both_ends_of_the_range_are_stored_exactly(world: World) -> None:
    """The reader sets aside what lies outside; what lies inside must come back as it was."""
    own(world)
    ends_us = [-2_208_988_800_000_000, 10_413_791_999_999_999]
    records = rows(2)
    kind = records.schema.field("event_date_time")
    records = records.set_column(2, kind, pa.array(ends_us, kind.type))
    send(world, batch_of(world, records))
    found = [
        row[0]
        for row in world.clickhouse.rows("SELECT toUnixTimestamp64Micro(event_date_time) FROM event_log ORDER BY id")
    ]
    assert found == ends_us
