"""With a key, a client that can write to Redis cannot store rows, move the slot or stop the reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from outhaul.sink.batch import Message, encode
from outhaul.sink.redis_keys import stored_key
from outhaul.sink.report import Outcome, Report
from outhaul.sink.seal import Seal
from tests.acceptance.commands import outhaul
from tests.acceptance.test_letters import asked
from tests.conftest import World, until
from tests.faults.test_hostile_redis import (
    EVERY_LINE,
    announced,
    body,
    db,
    push,
    queued,
    wait_until_idle,
    with_body,
    with_fields,
    worker_lines,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

__all__ = ["db"]

KEY = "0123456789abcdef" * 4


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A pipeline that seals its messages."""
    return make_world(message_key=KEY)


def test_a_forged_or_altered_or_repeated_message_inserts_nothing(world: World, db: redis.Redis) -> None:
    world.pipeline.start("reader")
    first, second = queued(world, db, 2)
    argument = body(first)[0][0]
    bare = {name: value for name, value in argument.items() if name != "seal"}
    events = pa.record_batch({"id": pa.array([4711], pa.int64())})
    forged = {
        "a stranger's rows": with_fields(first, **announced(db, first, encode(events))),
        "without a seal": with_body(first, [[bare], {}, {}]),
        "by another key": with_body(first, [[Seal("x" * 32).message("outhaul.write_batch", bare)], {}, {}]),
        "the seal of another": with_fields(first, seal=body(second)[0][0]["seal"]),
        "another sequence": with_fields(first, sequence=99),
        "as an order": first | {"headers": first["headers"] | {"task": "outhaul.retry_letters"}},
    }
    again = {f"again {n}": first | {"properties": first["properties"] | {"delivery_tag": str(n)}} for n in range(3)}
    push(db, world, forged | again)
    world.pipeline.start("worker", **EVERY_LINE)
    world.assert_once_each()
    wait_until_idle(world, db)
    refused = worker_lines(world, "message_refused")
    assert [line["kind"] for line in refused] == ["ForgedMessageError"] * len(forged)
    # A repeated message is one that the reader has sent: token and positions leave it out, from any sender.
    assert len(worker_lines(world, "batch_done")) >= 2 + 3 - 1
    assert world.ch("SELECT count() FROM event_log WHERE id = 4711") == 0
    world.assert_once_each()
    assert "session_ended" not in world.pipeline.log("reader")
    assert KEY not in world.pipeline.log("reader") + world.pipeline.log("worker")


def test_a_forged_report_moves_nothing_past_what_is_stored(world: World, db: redis.Redis) -> None:
    world.pipeline.start("reader", **EVERY_LINE)
    argument = body(queued(world, db)[0])[0][0]
    real = Message.from_json({name: value for name, value in argument.items() if name != "seal"})
    end = world.sql("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
    reports, before = stored_key(real.source, real.epoch), stored_key(real.source, real.epoch - 1)
    line = Report(Outcome.STORED, real.token, real.sequence).to_json()
    lines = [line, Seal("x" * 32).line(reports, line), Seal(KEY).line(before, line)]
    lines.append(Report(Outcome.FATAL, real.token, real.sequence, error="stop").to_json())
    db.rpush(reports, *lines)
    until(lambda: world.pipeline.log("reader").count("report_forged") == len(lines), what="the reader has heard them")
    assert world.confirmed() < end
    world.pipeline.check()
    world.pipeline.start("worker")
    world.assert_once_each()
    until(lambda: world.confirmed() >= end, what="the slot moves on")


@pytest.mark.thorough
def test_copies_and_dead_letters_go_the_same_way(world: World) -> None:
    world.conn.execute(
        "INSERT INTO outbox (event_type, environment, event_context, event_date_time) "
        "VALUES ('t', 'x', '{}', 'infinity')"
    )
    world.insert(3)
    world.pipeline.start("worker", "reader")
    world.assert_once_each(dead=1)
    world.clickhouse.command("TRUNCATE TABLE event_log")
    outhaul(world, "backfill")
    world.assert_once_each(dead=1)
    _, answered = asked(world, "retry", "--all")
    assert (len(answered["refused"]), answered["unanswered"]) == (1, [])
    assert "report_forged" not in world.pipeline.log("reader")
