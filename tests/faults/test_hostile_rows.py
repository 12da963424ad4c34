"""Rows that nobody would expect: stored as they are, or set aside whole with position and reason; the rest goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from outhaul.cdc_reader.session.recovery import recover
from outhaul.sink import task
from outhaul.sink.insert import insert
from outhaul.sink.position import Lsn
from outhaul.sink.report import Outcome
from outhaul.sink.task import Sink, write
from tests import launch
from tests.conftest import World, started, until
from tests.integration.test_exactly_once import HISTORY, batch_of, message_of, rows

if TYPE_CHECKING:
    from collections.abc import Callable

LIKE_ESCAPES = {
    "nul": r'{"a": "\u0000"}',
    "nul twice": r'{"a": "\u0000\u0000", "\u0000": 1}',
    "escaped nul": r'{"a": "\\u0000"}',
    "odd backslashes": r'{"a": "\\\\\\u0000"}',
    "half a surrogate": r'{"a": "\ud800"}',
    "copy's end": r'{"a": "\\."}',
    "copy's NULL": r'{"a": "\\N"}',
    "control characters": r'{"a": "\b\f\n\r\t\u0001\u001f\u007f"}',
    "spaces between": ' \t{\n"a"\r\n:\t1 } \n',
    "twice the same key": '{"a": 1, "a": 2}',
    "a list": "[1, 2]",
    "a number": "1e400",
    "a long number": "9" * 3000,
    "null": "null",
    "nested": "[" * 1000 + "]" * 1000,
    "an empty key": '{"": {"": ""}}',
    "quotes": """{"'": "`", "\\"": "');--"}""",
    "a statement": '{"a": "x\'); DROP TABLE event_log; --"}',
    "parameters": '{"a": "{source:String} %s %(a)s ${table} $1 ?"}',
    "emoji": '{"👩‍👩‍👧": "\u202eRTL\u202c \u0085 \u2028"}',
    "an end": '{"a": "\u200b\ufeff"}',
}
TEXTS = [r"\N", r"\0", r"\x00", r"\\", "", " ", "NULL", "null", "'", "`", '"', "{}", ";", "--", "\n", "\t", "%s", "🚀"]

# What the JSON type of ClickHouse does not take, and why a Postgres `json` column holds it all the same.
NO_JSON_OBJECTS = {
    "a list": "[1, 2]",
    "a scalar": "1",
    "null": "null",
    "twice the same key": '{"a": 1, "a": 2}',
    "a path twice": '{"a.b": 1, "a": {"b": 2}}',
    "nested too deep": '{"a": ' * 1500 + "1" + "}" * 1500,
    "lists too deep": '{"a": ' + "[" * 3000 + "]" * 3000 + "}",
    "too large a number": '{"a": 1e400}',
    "too long a number": '{"a": ' + "9" * 70 + "}",
    "half a surrogate": r'{"a": "\ud800"}',
}
JSON_OBJECTS = {
    "nul": r'{"a": "\u0000"}',
    "nul in a key": r'{"\u0000": 1}',
    "an empty key": '{"": 1}',
    "kinds mixed": '{"a": [1, "x", null, {"b": []}]}',
    "a thousand keys": "{" + ",".join(f'"k{n}": {n}' for n in range(1000)) + "}",
    "quotes": """{"`a`": 1, "'": 2}""",
}


@pytest.fixture
def json_world(make_world: Callable[..., World]) -> Callable[..., World]:
    """A pipeline over an outbox whose context is `json`: text that Postgres has checked and left as it was."""

    def make(**settings: Any) -> World:
        world = make_world(setup=False, **settings)
        world.conn.execute(
            "CREATE TABLE outbox (id bigserial PRIMARY KEY, event_type varchar(255) NOT NULL, "
            "event_date_time timestamptz DEFAULT now(), environment varchar(255) NOT NULL, "
            "event_context json NOT NULL, metadata_version bigint DEFAULT 1)"
        )
        launch.run("setup", env=world.env, timeout_s=60).check_returncode()
        world.pipeline.start("worker", "reader")
        return world

    return make


def emit(world: World, kind: str, context: str, environment: str = "test") -> None:
    world.conn.execute(
        "INSERT INTO outbox (event_type, environment, event_context) VALUES (%s, %s, %s)", [kind, environment, context]
    )


def letters(world: World) -> int:
    return int(world.ch("SELECT count() FROM event_log_dead_letters"))


def confirmed_to_the_end(world: World) -> bool:
    return world.confirmed() >= int(world.sql("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")) - 1000


def peak_mb(pid: int) -> float:
    """Peak resident memory of a process, MB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1000


def children(pid: int) -> list[int]:
    """All processes below one."""
    found = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [below for one in found for below in children(one)]


def test_strings_that_look_like_escapes_arrive_as_they_are(json_world: Callable[..., World]) -> None:
    world = json_world()
    for kind, context in LIKE_ESCAPES.items():
        emit(world, kind, context)
    for text in TEXTS:
        emit(world, text, json.dumps({"a": text}), text)
    world.assert_once_each()
    columns = "id, event_type, environment, event_context"
    expected = world.conn.execute(f"SELECT {columns} FROM outbox ORDER BY id".replace("_context", "_context::text"))
    assert world.clickhouse.rows(f"SELECT {columns} FROM event_log ORDER BY id") == expected.fetchall()
    assert letters(world) == 0


@pytest.mark.thorough
def test_what_the_json_type_refuses_is_set_aside_whole_and_the_rest_is_stored(json_world: Callable[..., World]) -> None:
    world = json_world(context_type="JSON")
    for kind, context in (NO_JSON_OBJECTS | JSON_OBJECTS).items():
        emit(world, kind, context)
    world.insert(20)
    until(lambda: letters(world) == len(NO_JSON_OBJECTS), what="they are set aside")
    world.assert_once_each(dead=len(NO_JSON_OBJECTS))
    found = world.clickhouse.rows("SELECT row, reason, cdc_lsn, cdc_ordinal FROM event_log_dead_letters")
    assert {(row := json.loads(line[0]))["event_type"]: row["event_context"] for line in found} == NO_JSON_OBJECTS
    assert all(reason.startswith("ClickHouse: ") and len(reason) < 5000 for _, reason, _, _ in found)
    positions = world.clickhouse.rows("SELECT cdc_lsn, cdc_ordinal FROM event_log")
    assert len({*positions, *((lsn, ordinal) for _, _, lsn, ordinal in found)}) == len(positions) + len(found)
    until(lambda: confirmed_to_the_end(world), what="the slot passes them")
    world.pipeline.check()


def test_a_transaction_full_of_impossible_times_goes_to_the_dead_letters_in_one_piece(running: World) -> None:
    times = [
        "infinity",
        "-infinity",
        "4713-01-01 00:00:00Z BC",
        "1899-12-31 23:59:59.999999Z",
        "2300-01-01 00:00:00Z",
        "294276-12-31 23:59:59.999999Z",
    ]
    running.conn.execute(
        "INSERT INTO outbox (event_type, event_date_time, environment, event_context) "
        "SELECT 'x', (%s::timestamptz[])[1 + n %% 6], 'test', jsonb_build_object('n', n) "
        "FROM generate_series(0, 2999) AS n",
        [times],
    )
    running.insert(10)
    until(lambda: letters(running) == 3000, what="they are set aside")
    running.assert_once_each(dead=3000)
    found = running.clickhouse.rows(
        "SELECT row, reason, cdc_ordinal FROM event_log_dead_letters ORDER BY cdc_lsn, cdc_ordinal"
    )
    assert [line[2] for line in found] == list(range(3000))
    assert [json.loads(json.loads(line[0])["event_context"])["n"] for line in found] == list(range(3000))
    assert len({json.loads(line[0])["event_date_time"] for line in found}) == 6
    assert all("is outside what DateTime64(6, 'UTC') holds" in line[1] for line in found)


@pytest.mark.thorough
def test_refused_rows_that_outlast_a_task_s_time_are_set_aside_over_several_attempts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one session had set aside stays so: if each tried all rows again, none would come to the end."""
    world.clickhouse.command("ALTER TABLE event_log ADD CONSTRAINT good CHECK id % 4 = 0")
    records, inserts = rows(24), 0

    def limited(*args: Any, **kwargs: Any) -> bool:
        nonlocal inserts
        inserts += 1
        if inserts > 20:
            raise SoftTimeLimitExceeded
        return insert(*args, **kwargs)

    monkeypatch.setattr(task, "insert", limited)
    tools = Sink(world.settings, world.clickhouse, world.payloads)
    aside = [0]
    for epoch in range(1, 21):
        found = recover(world.clickhouse, world.stream, HISTORY, Lsn(500), f"me{epoch}", lambda _seconds: None)
        missing = found.held["event_log"].missing(np.full(24, 500, np.uint64), np.arange(24, dtype=np.uint64))
        if not missing.any():
            break
        batch = batch_of(world, records.filter(pa.array(missing)))
        message = replace(message_of(world, batch, f"me{epoch}"), epoch=epoch)
        world.payloads.put(message.payload_key, batch.payload)
        inserts = 0
        try:
            write(tools, message)
        except SoftTimeLimitExceeded:
            assert letters(world) > aside[-1], "a session that got no further"
            aside.append(letters(world))
            inserts = 0
            assert write(tools, message).outcome is Outcome.STALE, "a second task of the batch ends the session"
    else:
        pytest.fail("no session came to the end")
    assert len(aside) > 2
    assert world.stored() == 6
    assert letters(world) == world.ch("SELECT uniqExact(cdc_lsn, cdc_ordinal) FROM event_log_dead_letters") == 18


@pytest.mark.thorough
@pytest.mark.slow
def test_a_context_of_64_mb_goes_the_whole_way_in_bounded_memory(make_world: Callable[..., World]) -> None:
    """Hex digits of hashes hardly compress, so that this is as large in Redis as it can be."""
    running = started(make_world(fork=False))
    running.insert(3)
    running.assert_once_each()
    reader, worker = running.pipeline.pid("reader"), running.pipeline.pid("worker")
    before = peak_mb(reader), max(map(peak_mb, children(worker)))
    size = 64 << 20
    text = "SELECT string_agg(md5(n::text), '') FROM generate_series(1, %s) AS n"
    running.conn.execute(
        "INSERT INTO outbox (event_type, environment, event_context) "
        f"VALUES ('large', 'test', jsonb_build_object('a', ({text})))",
        [size // 32],
    )
    running.insert(3)
    running.assert_once_each(within_s=120)
    found = running.clickhouse.rows(
        "SELECT length(event_context), lower(hex(MD5(event_context))) FROM event_log WHERE event_type = 'large'"
    )
    expected = running.sql("SELECT md5(event_context::text) FROM outbox WHERE event_type = 'large'")
    assert found == [(size + len('{"a": ""}'), expected)]
    peaks = peak_mb(reader), max(map(peak_mb, children(worker)))
    print(f"peak memory for a context of 64 MB: reader {before[0]:.0f} -> {peaks[0]:.0f} MB, ", end="")
    print(f"worker child {before[1]:.0f} -> {peaks[1]:.0f} MB")
    assert peaks[0] < 800
    assert peaks[1] < 600
    running.pipeline.check()


@pytest.mark.thorough
@pytest.mark.slow
def test_a_hundred_rows_of_a_megabyte_in_one_transaction_go_the_whole_way(make_world: Callable[..., World]) -> None:
    running = started(make_world(fork=False))
    running.conn.execute(
        "INSERT INTO outbox (event_type, environment, event_context) "
        "SELECT 'large', 'test', jsonb_build_object('n', n, 'a', "
        "(SELECT string_agg(md5((n * m)::text), '') FROM generate_series(1, 32768) AS m)) "
        "FROM generate_series(1, 100) AS n"
    )
    running.assert_once_each(within_s=120)
    hashes = dict(running.conn.execute("SELECT id, md5(event_context::text) FROM outbox").fetchall())
    found = running.clickhouse.rows("SELECT id, lower(hex(MD5(event_context))) FROM event_log")
    assert {row[0]: row[1] for row in found} == hashes
    peaks = peak_mb(running.pipeline.pid("reader")), max(map(peak_mb, children(running.pipeline.pid("worker"))))
    print(f"peak memory for 100 rows of 1 MB: reader {peaks[0]:.0f} MB, worker child {peaks[1]:.0f} MB")
    assert peaks[0] < 500
    assert peaks[1] < 300
    running.pipeline.check()


@pytest.mark.thorough
@pytest.mark.slow
def test_a_context_of_16_mb_that_cannot_be_stored_is_set_aside_whole(json_world: Callable[..., World]) -> None:
    """ClickHouse quotes it in its error, whole."""
    world = json_world(context_type="JSON", fork=False)
    size = 16 << 20
    emit(world, "fine", '{"a": 1}')
    world.conn.execute(
        "INSERT INTO outbox (event_type, environment, event_context) "
        "VALUES ('large', 'test', ('[\"' || repeat('0123456789abcdef', %s) || '\"]')::json)",
        [size // 16],
    )
    emit(world, "fine", '{"a": 1}')
    until(lambda: letters(world) == 1, within_s=120, what="it is set aside")
    world.assert_once_each(dead=1)
    found = world.clickhouse.rows(
        "SELECT length(JSONExtractString(row, 'event_context')), reason FROM event_log_dead_letters"
    )
    assert found[0][0] == size + 4
    assert found[0][1].startswith("ClickHouse: ")
    assert len(found[0][1]) < 5000
    assert max(map(len, world.pipeline.log("worker").splitlines())) < 5000
    peaks = peak_mb(world.pipeline.pid("reader")), max(map(peak_mb, children(world.pipeline.pid("worker"))))
    print(f"peak memory for a refused context of 16 MB: reader {peaks[0]:.0f} MB, worker child {peaks[1]:.0f} MB")
    assert peaks[1] < 600
    world.pipeline.check()
