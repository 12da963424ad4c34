"""Views against the real engine: each event once, whatever an insert left behind, and whatever a view refuses."""

from dataclasses import replace

import pyarrow as pa
import pytest

from outhaul.cdc_reader.session import fill_views as filling
from outhaul.cdc_reader.session import recovery
from outhaul.cdc_reader.session.fill_views import fill_views, keep_views_filled
from outhaul.cdc_reader.session.loop_events import Events
from outhaul.cdc_reader.session.recovery import recover
from outhaul.sink.batch import Message, Packer
from outhaul.sink.errors import FatalError, PipelineError
from outhaul.sink.fence import EpochOverError, guard
from outhaul.sink.insert import Target, batch_number, insert
from outhaul.sink.position import Lsn, Position
from outhaul.sink.report import Outcome, Report
from outhaul.sink.task import Sink, write
from outhaul.sink.view_gaps import StoredBatch, ViewFeed, gaps
from outhaul.sink.views import View
from tests.conftest import World
from tests.integration.test_exactly_once import HISTORY, SCHEMA, batch_of, message_of, own, rows

WINDOW = "SETTINGS non_replicated_deduplication_window = 10000"


def target_of(world: World) -> Target:
    return Target("event_log", "event_log_dead_letters", "event_log_view_gaps", guard(world.settings), timeout_s=30)


@pytest.fixture
def views(world: World) -> World:
    """A world whose event table has three views: one by row, one that sums, one that reads the target of the first."""
    mergetree = f"ENGINE = MergeTree ORDER BY id {WINDOW}"
    summing = f"ENGINE = SummingMergeTree ORDER BY event_type {WINDOW}"
    amounts = "SELECT id, toUInt64(JSONExtractString(event_context, 'n')) AS n FROM event_log"
    per_type = "SELECT event_type, count() AS events FROM event_log GROUP BY event_type"
    # It works while a table has a row.
    switched = "SELECT id FROM event_log WHERE intDiv(id * 0 + 1, (SELECT count() FROM works)) = 1"
    for statement in (
        f"CREATE TABLE amounts (id Int64, n UInt64) {mergetree}",
        f"CREATE TABLE per_type (event_type String, events UInt64) {summing}",
        f"CREATE TABLE big (id Int64) ENGINE = MergeTree PARTITION BY id % 3 ORDER BY id {WINDOW}",
        f"CREATE TABLE switched (id Int64) {mergetree}",
        "CREATE TABLE works (yes UInt8) ENGINE = Memory",
        "INSERT INTO works VALUES (1)",
        f"CREATE MATERIALIZED VIEW to_amounts TO amounts AS {amounts}",
        f"CREATE MATERIALIZED VIEW to_per_type TO per_type AS {per_type}",
        "CREATE MATERIALIZED VIEW to_big TO big AS SELECT id FROM amounts WHERE id % 2 = 0",
        f"CREATE MATERIALIZED VIEW to_switched TO switched AS {switched}",
    ):
        world.clickhouse.command(statement)
    return world


def events(count: int, bad: int | None = None, lsn: int = 500) -> pa.RecordBatch:
    contexts = [b'{"n":"x"}' if n == bad else b'{"n":"5"}' for n in range(count)]
    return rows(count, lsn).set_column(4, SCHEMA.field("event_context"), pa.array(contexts))


def counts(world: World) -> tuple[int, ...]:
    questions = ("count() FROM event_log", "count() FROM amounts", "sum(events) FROM per_type", "count() FROM switched")
    return tuple(int(world.ch(f"SELECT {question}")) for question in questions)


def sent(world: World, message: Message, payload: bytes) -> Report:
    world.payloads.put(message.payload_key, payload)
    return write(Sink(world.settings, world.clickhouse, world.payloads), message)


def feed_of(world: World, owner: str = "me") -> ViewFeed:
    return ViewFeed(world.clickhouse, world.outbox, "event_log", world.stream.lane, owner)


def recovered(world: World, owner: str) -> None:
    recover(world.clickhouse, world.stream, HISTORY, Lsn(400), owner, lambda _seconds: None)


def test_a_batch_in_pieces_reaches_each_view_once_however_often_it_is_sent(views: World) -> None:
    own(views)
    whole = events(3000)
    packer = Packer(views.settings.source, "event_log", whole.schema)
    for start in range(0, 3000, 700):
        part = whole.slice(start, 700)
        packer.add(part, Position(Lsn(500), start), Position(Lsn(500), start + part.num_rows - 1))
    batch = packer.finish()
    for _ in range(3):
        insert(views.clickhouse, message_of(views, batch), batch.payload, target_of(views))
    recovered(views, "next")
    assert counts(views) == (3000, 3000, 3000, 3000)
    assert views.ch("SELECT count() FROM big") == 1500


def test_rows_that_landed_in_the_table_alone_reach_the_views_when_the_batch_is_sent_again(views: World) -> None:
    own(views)
    batch = batch_of(views, events(300))
    views.clickhouse.command("TRUNCATE TABLE works")
    with pytest.raises(PipelineError):
        insert(views.clickhouse, message_of(views, batch), batch.payload, target_of(views))
    assert counts(views)[0] == 300
    assert counts(views)[3] == 0
    views.clickhouse.command("INSERT INTO works VALUES (1)")
    assert sent(views, message_of(views, batch), batch.payload).outcome is Outcome.STORED
    assert counts(views) == (300, 300, 300, 300)
    assert views.ch("SELECT count() FROM big") == 150


def test_a_new_reader_completes_the_views(views: World) -> None:
    """The worker died between the table and a view, the reader died, and Redis has lost everything."""
    own(views)
    batch = batch_of(views, events(300))
    views.clickhouse.command("TRUNCATE TABLE works")
    with pytest.raises(PipelineError):
        insert(views.clickhouse, message_of(views, batch), batch.payload, target_of(views))
    views.clickhouse.command("INSERT INTO works VALUES (1)")
    for owner in ("next", "last"):
        recovered(views, owner)
        assert counts(views) == (300, 300, 300, 300)


@pytest.mark.parametrize("happens", ["ClickHouse is restarted", "another reader takes over"])
def test_a_recovery_whose_epoch_ends_before_it_completes_the_views_begins_again(
    views: World, monkeypatch: pytest.MonkeyPatch, happens: str
) -> None:
    own(views)
    batch = batch_of(views, events(10))
    insert(views.clickhouse, message_of(views, batch), batch.payload, target_of(views))

    def end_epoch(point: str) -> None:
        if point == "recovery.settled" and happens == "ClickHouse is restarted":
            # What a restart does to a table in memory.
            views.clickhouse.command("TRUNCATE TABLE event_log_owners")
        elif point == "recovery.settled":
            own(views, "another", 9)

    monkeypatch.setattr(recovery, "reach", end_epoch)
    with pytest.raises(EpochOverError):
        recovered(views, "next")


def test_a_view_that_refuses_one_row_costs_neither_the_others_nor_the_other_views(views: World) -> None:
    own(views)
    batch = batch_of(views, events(1000, bad=7))
    for _ in range(2):
        report = sent(views, message_of(views, batch), batch.payload)
        assert (report.outcome, report.dead_letters) == (Outcome.STORED, 0)
        assert counts(views) == (1000, 0, 1000, 1000)
    for _ in range(2):
        feed_of(views).fill()
        assert counts(views) == (1000, 999, 1000, 1000)
    recovered(views, "next")
    assert counts(views) == (1000, 999, 1000, 1000)
    (gap,) = gaps(views.clickhouse, views.outbox)
    assert gap.view.endswith(".to_amounts")
    assert (gap.position, gap.rows) == ((500, 7), 1)
    assert "Cannot parse" in gap.reason

    assert feed_of(views, "next").fill() == 0
    mended(views)
    assert feed_of(views, "next").fill() == 1
    assert feed_of(views, "next").fill() == 0
    assert counts(views) == (1000, 1000, 1000, 1000)
    assert views.ch("SELECT count() FROM big") == 500
    assert not gaps(views.clickhouse, views.outbox)


def test_a_view_that_refuses_everything_is_filled_when_it_works_again(views: World) -> None:
    own(views)
    batch = batch_of(views, events(1000, bad=7))
    views.clickhouse.command("TRUNCATE TABLE works")
    assert sent(views, message_of(views, batch), batch.payload).outcome is Outcome.STORED
    assert counts(views) == (1000, 0, 1000, 0)
    found = {(gap.view.split(".")[1], gap.rows) for gap in gaps(views.clickhouse, views.outbox)}
    assert found == {("to_amounts", 1000), ("to_switched", 1000)}
    feed_of(views).fill()
    assert counts(views) == (1000, 999, 1000, 0)
    views.clickhouse.command("INSERT INTO works VALUES (1)")
    # Both views take the batch now, but nobody sends it again: one of them would have it twice.
    recovered(views, "next")
    assert sent(views, replace(message_of(views, batch, "next"), epoch=2), batch.payload).outcome is Outcome.STALE
    assert counts(views) == (1000, 999, 1000, 0)
    for _ in range(2):
        feed_of(views, "next").fill()
        assert counts(views) == (1000, 999, 1000, 1000)
    recovered(views, "last")
    assert counts(views) == (1000, 999, 1000, 1000)


def mended(world: World) -> None:
    world.clickhouse.command("DROP VIEW to_amounts SYNC")
    world.clickhouse.command(
        "CREATE MATERIALIZED VIEW to_amounts TO amounts AS "
        "SELECT id, toUInt64OrZero(JSONExtractString(event_context, 'n')) AS n FROM event_log"
    )


@pytest.mark.thorough
def test_a_statement_that_began_before_the_note_and_reaches_the_view_after_it_is_not_repeated(views: World) -> None:
    own(views)
    batch = batch_of(views, events(100))
    views.clickhouse.command("TRUNCATE TABLE works")
    assert sent(views, message_of(views, batch), batch.payload).outcome is Outcome.STORED
    (gap,) = gaps(views.clickhouse, views.outbox)
    assert counts(views) == (100, 100, 100, 0)
    views.clickhouse.command("INSERT INTO works VALUES (1)")
    feed_of(views)._push(gap.batch, though_noted=True)
    assert counts(views) == (100, 100, 100, 100)
    assert feed_of(views).fill() == 1
    assert counts(views) == (100, 100, 100, 100)
    assert not gaps(views.clickhouse, views.outbox)


def test_a_reader_that_died_after_it_noted_a_row_fills_the_others_without_it(views: World) -> None:
    own(views)
    batch = batch_of(views, events(100, bad=7))
    assert sent(views, message_of(views, batch), batch.payload).outcome is Outcome.STORED
    (gap,) = gaps(views.clickhouse, views.outbox)
    feed_of(views)._note(replace(gap, position=(500, 7), rows=1))
    mended(views)
    for _ in range(3):
        feed_of(views).fill()
    assert counts(views) == (100, 100, 100, 100)
    assert views.ch("SELECT count() FROM big") == 50
    assert not gaps(views.clickhouse, views.outbox)


def test_a_reader_that_was_replaced_fills_nothing(views: World) -> None:
    own(views)
    batch = batch_of(views, events(100, bad=7))
    assert sent(views, message_of(views, batch), batch.payload).outcome is Outcome.STORED
    recovered(views, "next")
    with pytest.raises(FatalError, match="newer reader"):
        feed_of(views).fill()
    assert counts(views) == (100, 0, 100, 100)
    feed_of(views, "next").fill()
    mended(views)
    with pytest.raises(FatalError, match="newer reader"):
        feed_of(views).fill()
    assert counts(views) == (100, 99, 100, 100)


def test_a_restart_of_clickhouse_ends_a_session_that_has_views_to_fill_and_no_events(
    views: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    own(views)
    batch = batch_of(views, events(100, bad=7))
    assert sent(views, message_of(views, batch), batch.payload).outcome is Outcome.STORED
    # What a restart does to a table in memory.
    views.clickhouse.command("TRUNCATE TABLE event_log_owners")
    monkeypatch.setattr(filling, "_EVERY_S", 0.01)
    with pytest.raises(EpochOverError, match="was restarted"):
        keep_views_filled(Events(), lambda: fill_views(views.clickhouse, views.stream, "me", 1))


@pytest.mark.thorough
def test_rows_that_the_table_refuses_are_set_aside_and_the_views_have_the_others(views: World) -> None:
    own(views)
    views.clickhouse.command("ALTER TABLE event_log ADD CONSTRAINT odd CHECK id != 11")
    batch = batch_of(views, events(100, bad=7))
    assert sent(views, message_of(views, batch), batch.payload).outcome is Outcome.STORED
    # A second task finds rows of others, whose inserts may still run: a new session looks again.
    assert sent(views, message_of(views, batch), batch.payload).outcome is Outcome.STALE
    recovered(views, "next")
    feed_of(views, "next").fill()
    assert counts(views) == (99, 98, 99, 99)
    assert views.ch("SELECT count() FROM event_log_dead_letters") == 1
    assert [gap.position for gap in gaps(views.clickhouse, views.outbox)] == [(500, 7)]


def test_a_batch_whose_token_is_forgotten_is_not_sent_to_the_views_again(
    views: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    own(views)
    batch = batch_of(views, events(10))
    assert sent(views, message_of(views, batch), batch.payload).outcome is Outcome.STORED
    for name in ("insert", "push_again"):
        monkeypatch.setattr(f"outhaul.sink.{name}.memory", lambda *_: {"max_batches": 0, "max_seconds": 99})
    assert sent(views, message_of(views, batch), batch.payload).outcome is Outcome.STORED
    recovered(views, "next")
    assert counts(views) == (10, 10, 10, 10)


def test_an_insert_of_an_older_epoch_pushes_nothing(views: World) -> None:
    own(views)
    batch = batch_of(views, events(10))
    insert(views.clickhouse, message_of(views, batch), batch.payload, target_of(views))
    own(views, "next", 2)
    with pytest.raises(FatalError):
        insert(views.clickhouse, message_of(views, batch), batch.payload, target_of(views))
    assert sent(views, message_of(views, batch), batch.payload).outcome is Outcome.STALE
    assert counts(views) == (10, 10, 10, 10)


@pytest.mark.thorough
def test_a_view_on_a_target_that_refuses_rows_is_named_and_costs_nobody_else(views: World) -> None:
    own(views)
    views.clickhouse.command(f"CREATE TABLE shares (id Int64) ENGINE = MergeTree ORDER BY id {WINDOW}")
    views.clickhouse.command(
        "CREATE MATERIALIZED VIEW to_shares TO shares AS SELECT intDiv(id, toInt64(n) - 5) AS id FROM amounts"
    )
    batch = batch_of(views, events(100))
    for _ in range(2):
        assert sent(views, message_of(views, batch), batch.payload).outcome is Outcome.STORED
        feed_of(views).fill()
        assert counts(views) == (100, 100, 100, 100)
    (gap,) = gaps(views.clickhouse, views.outbox)
    assert (gap.view.split(".")[1], gap.position, gap.rows) == ("to_shares", (0, 0), 100)
    assert "ILLEGAL_DIVISION" in gap.reason
    views.clickhouse.command("DROP VIEW to_shares SYNC")
    assert feed_of(views).fill() == 1
    assert not gaps(views.clickhouse, views.outbox)


def test_a_batch_that_another_task_notes_at_the_same_moment_is_noted_once(views: World) -> None:
    class Late(ViewFeed):
        """Looks at the views after another task has noted the batch."""

        def views(self) -> list[View]:
            feed_of(views).push(stored)
            return super().views()

    own(views)
    batch = batch_of(views, events(100, bad=7))
    message = message_of(views, batch)
    target = replace(target_of(views), ignore_view_errors=True)
    insert(views.clickhouse, message, batch.payload, target)
    stored = StoredBatch(batch_number(message), 500, 500)
    assert Late(views.clickhouse, views.outbox, "event_log", views.stream.lane, "me").push(stored)
    assert [gap.position for gap in gaps(views.clickhouse, views.outbox)] == [(0, 0)]
