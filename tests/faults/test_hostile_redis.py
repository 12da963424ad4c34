"""Whatever somebody else puts into Redis, reader and worker go on, and ClickHouse holds what was committed, once."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import redis

from outhaul.sink.batch import MESSAGE_VERSION, Message, encode, token_of
from outhaul.sink.redis_keys import celery_prefix, epoch_key, payload_key, stored_key
from outhaul.sink.report import Outcome, Report
from tests.conftest import World, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Envelope = dict[str, Any]

# Lines that repeat themselves are counted here, so none may be left out.
EVERY_LINE = {"OUTHAUL_LOG_LEVEL": "DEBUG"}


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A pipeline whose worker has all that could be stopped: a watchdog, and a pool."""
    return make_world(pool=True)


@pytest.fixture
def db(world: World) -> Iterator[redis.Redis]:
    """The pipeline's Redis, as somebody else sees it."""
    client = redis.Redis.from_url(world.env["OUTHAUL_REDIS_URL"], socket_timeout=60)
    yield client
    client.close()


def queued(world: World, db: redis.Redis, batches: int = 1) -> list[Envelope]:
    """Commit `batches` batches while no worker runs; return their messages from the queue, oldest first."""
    for n in range(batches):
        world.insert(n + 1)
        until(lambda n=n: _queue_length(world, db) > n, what="the batch is queued")  # type: ignore[misc]
    return [json.loads(item) for item in reversed(db.lrange(world.settings.queue_key, 0, -1))]


def unacked(world: World) -> str:
    """Return the key of the messages that workers have."""
    return celery_prefix(world.settings.source) + "unacked"


def _queue_length(world: World, db: redis.Redis) -> int:
    return int(db.llen(world.settings.queue_key))


def body(envelope: Envelope) -> list[Any]:
    made: list[Any] = json.loads(base64.b64decode(envelope["body"]))
    return made


def message(envelope: Envelope) -> Message:
    return Message.from_json(body(envelope)[0][0])


def with_body(envelope: Envelope, raw: bytes | object) -> Envelope:
    data = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
    return envelope | {"body": base64.b64encode(data).decode()}


def with_fields(envelope: Envelope, **changes: object) -> Envelope:
    _, named, embedded = body(envelope)
    return with_body(envelope, [[body(envelope)[0][0] | changes], named, embedded])


def with_headers(envelope: Envelope, **changes: object) -> Envelope:
    return envelope | {"headers": envelope["headers"] | changes}


def broken_envelopes(real: Envelope) -> dict[str, bytes | object]:
    """Items that nobody who speaks Celery's protocol would put on the queue."""
    plain = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return {
        "garbage": b"\xff\x00garbage",
        "nothing": b"",
        "a list": [1],
        "an empty object": {},
        "no properties": {"body": "x"},
        "nested without end": b"[" * 200_000,
        "no body": real | {"body": None},
        "a body that is no base64": real | {"body": "%%%"},
        "a body that is no JSON": with_body(real, b"{{{"),
        "a body nested without end": with_body(real, b"[" * 40_000),
        "a body that is a number": with_body(real, 42),
        "a body of 16 MB": with_body(real, [["x" * (16 << 20)], {}, plain]),
        "named arguments that are a list": with_body(real, [[1], [1], plain]),
        "an embedding that is a list": with_body(real, [[1], {}, [1]]),
        "a callback": with_body(real, [[1], {}, plain | {"callbacks": [{"task": "x"}]}]),
        "a chord": with_body(real, [[1], {}, plain | {"chord": 9}]),
        "pickle": real | {"content-type": "application/x-python-serialize"},
        "YAML": real | {"content-type": "application/x-yaml"},
        "compressed": with_headers(real, compression="application/x-gzip"),
        "no headers": real | {"headers": None},
        "headers that are a list": real | {"headers": [1]},
        "properties that are a list": real | {"properties": [1]},
        "a tag that is an object": real | {"properties": real["properties"] | {"delivery_tag": {"a": 1}}},
        "no tag": real | {"properties": real["properties"] | {"delivery_tag": None}},
        "delivery information that is a list": real | {"properties": real["properties"] | {"delivery_info": [1]}},
        "an unknown task": with_headers(real, task="os.system"),
        "a task of Celery's own": with_headers(real, task="celery.backend_cleanup"),
        "a task that is a list": with_headers(real, task=["outhaul.write_batch"]),
        "an id that is an object": with_headers(real, id={}),
        "an invalid time": with_headers(real, eta="never"),
        "an expiry that is an object": with_headers(real, expires={"a": 1}),
        "retries that are a text": with_headers(real, retries="many"),
        "negative retries": with_headers(real, retries=-1),
        "a time limit that is a text": with_headers(real, timelimit="soon"),
        "a time limit of texts": with_headers(real, timelimit=["a", "b"]),
        "a time limit of its own": with_headers(real, timelimit=[1e9, 1e9]),
        "the protocol of Celery 3": real | {"headers": {}},
    }


def forged_messages(world: World, real: Envelope) -> dict[str, Envelope]:
    """Well-formed calls of our task, none of which a reader has sent."""
    return {
        "another table": with_fields(real, table="system.users"),
        "a table that is a statement": with_fields(real, table="x; DROP TABLE event_log"),
        "the table of epochs": with_fields(real, table="event_log_epochs"),
        "another source": with_fields(real, source="someone_else"),
        "a token that is a path": with_fields(real, token="../../x"),
        "negative rows": with_fields(real, rows=-1),
        "another version": with_fields(real, version=MESSAGE_VERSION + 1),
        "one field more": with_fields(real, more=1),
        "no arguments": with_body(real, [[], {}, {}]),
        "a named argument": with_body(real, [body(real)[0], {"data": 1}, {}]),
        "an argument that is a list": with_body(real, [[[1]], {}, {}]),
    }


def announced(db: redis.Redis, real: Envelope, payload: bytes) -> dict[str, object]:
    """Put a stranger's payload into Redis; return the fields of a message that announces it."""
    source = body(real)[0][0]["source"]
    token = token_of(source, "event_log", "0/1#0", "0/1#0", 1, payload)
    db.set(payload_key(source, token), payload)
    return {"token": token, "first": "0/1#0", "last": "0/1#0", "rows": 1, "size_bytes": len(payload)}


def worker_lines(world: World, event: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in world.pipeline.log("worker").splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


def push(db: redis.Redis, world: World, items: dict[str, Any]) -> None:
    for item in items.values():
        db.lpush(world.settings.queue_key, item if isinstance(item, bytes) else json.dumps(item))


def wait_until_idle(world: World, db: redis.Redis) -> None:
    """Wait until nothing is queued or in a worker's hands; say what is left where that does not come."""

    def left() -> tuple[Any, ...]:
        return db.lrange(world.settings.queue_key, 0, -1), db.hvals(unacked(world))

    try:
        # A task that is to be repeated waits in a worker's hands.
        until(lambda: not any(left()), within_s=90, what="all are done with")
    except AssertionError as error:
        error.add_note(f"queued and unacked: {left()}")
        raise


@pytest.mark.thorough
def test_forged_messages_insert_nothing_and_stop_neither_worker_nor_reader(world: World, db: redis.Redis) -> None:
    world.pipeline.start("reader")
    real = queued(world, db)[0]
    broken, forged = broken_envelopes(real), forged_messages(world, real)
    push(db, world, broken | forged)
    # Entries among the unacked that cannot be restored.
    db.hset(unacked(world), mapping={"x": b"garbage", "y": b"[1, 2, 3]"})
    db.zadd(f"{unacked(world)}_index", {"x": 0, "y": 0, "z": 0})
    world.pipeline.start("worker", **EVERY_LINE)
    pid = world.pipeline.pid("worker")
    until(lambda: not db.llen(world.settings.queue_key), what="the queue is empty")
    world.insert(3)
    world.assert_once_each()
    # All but the invalid time, which Celery itself refuses, and the entry.
    expected = len(broken | forged) - 1 + 1
    until(lambda: len(worker_lines(world, "message_refused")) >= expected, what="every one of them is refused")
    assert all(len(line["error"]) < 400 for line in worker_lines(world, "message_refused"))
    until(lambda: not db.hlen(unacked(world)), what="nothing is left unacked")
    assert len(worker_lines(world, "message_refused")) == expected
    world.pipeline.check()
    assert world.pipeline.pid("worker") == pid
    assert "Traceback" not in world.pipeline.log("reader")
    assert "Unrecoverable" not in world.pipeline.log("worker")
    assert "session_ended" not in world.pipeline.log("reader")
    assert world.ch("SELECT count() FROM event_log_dead_letters") == 0
    assert world.ch("SELECT count() FROM event_log_epochs") == 1
    ping = [sys.executable, "-m", "celery", "-A", "outhaul.sink.app", "inspect", "ping", "--timeout", "5"]
    done = subprocess.run(ping, env=os.environ | world.env, capture_output=True, text=True, check=False, timeout=60)
    assert "pong" in done.stdout, "the worker still listens to remote control"


@pytest.mark.thorough
def test_forged_messages_about_a_batch_in_flight_do_not_stop_its_reader(world: World, db: redis.Redis) -> None:
    world.pipeline.start("reader")
    real = queued(world, db)[0]
    garbage = announced(db, real, b"garbage")
    column = pa.field("nowhere", pa.int64(), metadata={"clickhouse": "Int64"})
    no_column = announced(db, real, encode(pa.record_batch([pa.array([1], pa.int64())], pa.schema([column]))))
    forged = {
        "other positions": with_fields(real, first="0/1#0"),
        "another count": with_fields(real, rows=77),
        "the dead letters": with_fields(real, table="event_log_dead_letters"),
        "another sequence": with_fields(real, sequence=99),
        "an epoch to come": with_fields(real, epoch=2**40),
        "an announced payload that is no Arrow": with_fields(real, **garbage),
        "the same of another owner": with_fields(real, **garbage, owner="stranger"),
        "an announced payload of another owner": with_fields(real, **no_column, owner="stranger"),
        "an announced payload that ClickHouse refuses for good": with_fields(real, **no_column),
    }
    push(db, world, forged)
    world.pipeline.start("worker", **EVERY_LINE)
    world.insert(3)
    world.assert_once_each()
    wait_until_idle(world, db)
    assert len(worker_lines(world, "message_refused")) == 2
    assert len(worker_lines(world, "batch_failed")) >= 1
    assert world.ch("SELECT count() FROM event_log_dead_letters") == 0
    world.pipeline.check()
    assert "session_ended" not in world.pipeline.log("reader")


@pytest.mark.thorough
def test_a_stranger_s_payload_is_never_stored_and_the_right_one_is_sent_again(world: World, db: redis.Redis) -> None:
    world.pipeline.start("reader")
    keys = [message(envelope).payload_key for envelope in queued(world, db, 7)]
    rows = db.get(keys[0])
    assert rows is not None
    db.set(keys[1], b"garbage")
    db.set(keys[2], db.getrange(keys[2], 0, 500))
    db.set(keys[3], rows)
    db.set(keys[4], b"")
    db.set(keys[5], b"\0" * (96 << 20))
    db.delete(keys[6])
    db.lpush(keys[6], b"x")
    world.pipeline.start("worker")
    world.assert_once_each()
    # The last row is in the table before its worker logs that.
    until(lambda: len(worker_lines(world, "batch_done")) >= 13, what="the worker has logged its batches")
    outcomes = [line["outcome"] for line in worker_lines(world, "batch_done")]
    assert outcomes.count("missing") == 6
    assert outcomes.count("stored") == 7
    world.pipeline.check()
    assert "session_ended" not in world.pipeline.log("reader")


def test_a_forged_report_neither_moves_the_slot_nor_stops_the_reader(world: World, db: redis.Redis) -> None:
    world.pipeline.start("reader", **EVERY_LINE)
    real = message(queued(world, db)[0])
    end = world.sql("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
    reports = stored_key(real.source, real.epoch)
    lines: list[bytes | str] = [b"", b"\xff", b"[]", b"[" * 200_000, b"x" * (64 << 20), '{"sequence": Infinity}']
    for outcome in Outcome:
        for token, sequence in (("0" * 32, real.sequence), (real.token, 99), ("", 0)):
            lines.append(Report(outcome, token, sequence, error="stop", exit_code=22, wait_s=1e4).to_json())
    for line in lines:
        db.rpush(reports, line)
    until(lambda: not db.llen(reports), what="the reader has heard them")
    # A key of another kind in the place of the list.
    db.set(reports, "x")
    until(lambda: db.type(reports) != b"string", what="the list can be written to again")
    assert world.confirmed() < end
    world.pipeline.start("worker")
    world.assert_once_each()
    until(lambda: world.confirmed() >= end, what="the slot moves on")
    log = world.pipeline.log("reader")
    assert log.count("report_unreadable") == 6
    assert log.count("report_passed_over") >= 18
    assert max(map(len, log.splitlines())) < 2000
    assert "session_ended" not in log
    world.pipeline.check()


def test_a_damaged_mirror_of_the_epoch_stops_nothing(world: World, db: redis.Redis) -> None:
    mirror = epoch_key(world.settings.source)
    world.pipeline.start("worker", "reader")
    until(lambda: db.exists(mirror), what="the reader has announced its epoch")
    for damage in (b"\xff\xfe", b"9" * 5000, b"-1", b""):
        db.set(mirror, damage)
        world.insert(2)
        world.assert_once_each()
    db.delete(mirror)
    db.lpush(mirror, "a list")
    world.insert(2)
    world.assert_once_each()
    world.pipeline.check()
    assert "session_ended" not in world.pipeline.log("reader")


@pytest.mark.thorough
def test_a_forged_epoch_to_come_costs_one_session(world: World, db: redis.Redis) -> None:
    world.pipeline.start("reader")
    queued(world, db)
    db.set(epoch_key(world.settings.source), 10**15)
    world.pipeline.start("worker")
    world.assert_once_each()
    world.pipeline.check()
    assert world.pipeline.log("reader").count("session_ended") == 1
