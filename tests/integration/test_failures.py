"""Failures of processes by Redis: what one writes is what `status` reads, and nothing else is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from outhaul.cdc_reader.operate.status.ask import RedisState, ask_redis
from outhaul.cdc_reader.operate.status.problems import judge
from outhaul.cdc_reader.session.reader_state import STALE_S, TTL_S, ReaderState
from outhaul.sink.errors import FatalError
from outhaul.sink.redis.failures import Reporter, recent
from outhaul.sink.redis_keys import failures_key, reader_key
from tests.conftest import until

if TYPE_CHECKING:
    from tests.conftest import World


def test_a_failure_is_shown_with_its_process_age_and_first_line(world: World) -> None:
    reporter = Reporter(world.settings, "worker")
    for _ in range(3):
        reporter.failed(FileNotFoundError(2, "No such file or directory", "sql/x.sql"))
    (found,) = recent(world.payloads, world.settings)
    assert (found.process, found.times, found.is_end) == ("worker", 3, False)
    assert 0 <= found.age_s < 60
    assert "failed unexpectedly" in str(found)
    assert ", 3 times: FileNotFoundError: [Errno 2] No such file or directory: 'sql/x.sql'" in str(found)
    assert str(replace(found, age_s=75.0)).count("75 s ago") == 1
    shown = judge(None, ask_redis(world.payloads, world.stream), None, world.stream, 0.0)
    assert any("FileNotFoundError" in line for line in shown)


def test_the_error_that_ended_a_reader_is_shown_until_a_reader_runs(world: World) -> None:
    Reporter(world.settings, "reader").ended(FatalError("the table is gone", todo="Create it"))
    (found,) = recent(world.payloads, world.settings)
    state = RedisState(None, None, None, 0, True, failures=(found,))
    ended = f"the reader on {found.host} (process {found.pid}) ended just now: the table is gone. Create it"
    assert ended in judge(None, state, None, world.stream, 0.0)
    runs = replace(state, reader=ReaderState(7, "here", "streaming"))
    assert judge(None, runs, None, world.stream, 0.0) == []


def test_a_password_of_the_settings_is_not_in_the_line(world: World) -> None:
    url = world.env["OUTHAUL_REDIS_URL"]
    settings = world.settings.model_copy(update={"clickhouse_url": SecretStr("http://app:very-secret@127.0.0.1:1/x")})
    Reporter(settings, "worker").failed(RuntimeError("cannot open http://app:very-secret@127.0.0.1:1/x"))
    assert "very-secret" not in str(recent(world.payloads, world.settings)[0])
    assert url == world.env["OUTHAUL_REDIS_URL"]


FACT: dict[str, Any] = {
    "process": "worker",
    "host": "h",
    "pid": 7,
    "text": "x",
    "times": 1,
    "at": 0.0,
    "is_end": False,
}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[",
        "[" * 60_000,
        "null",
        json.dumps(FACT | {"pid": "abc"}),
        json.dumps(FACT | {"process": "somebody"}),
        json.dumps(FACT | {"at": None}),
        json.dumps({name: FACT[name] for name in ("process", "host")}),
    ],
    ids=range(8),
)
def test_a_line_that_no_process_has_written_is_left_out(world: World, line: str) -> None:
    key = failures_key(world.settings.source)
    world.payloads.note(key, "worker@h", line, ttl_s=60, max_fields=10)
    assert recent(world.payloads, world.settings) == ()


def test_characters_that_control_a_terminal_are_not_shown(world: World) -> None:
    key, fact = failures_key(world.settings.source), FACT | {"at": world.payloads.clock(), "text": "a\x1b[2J\u202e\x9b"}
    world.payloads.note(key, "worker@h", json.dumps(fact), ttl_s=60, max_fields=10)
    assert str(recent(world.payloads, world.settings)[0]).isprintable()


def test_with_a_key_an_unsealed_line_is_left_out(world: World) -> None:
    sealed = world.settings.model_copy(update={"message_key": SecretStr("k" * 32)})
    Reporter(world.settings, "worker").failed(RuntimeError("x"))
    assert recent(world.payloads, sealed) == ()
    Reporter(sealed, "worker").failed(RuntimeError("x"))
    assert len(recent(world.payloads, sealed)) == 1


def test_hosts_that_come_and_go_do_not_fill_the_hash(world: World) -> None:
    key = failures_key(world.settings.source)
    for number in range(25):
        world.payloads.note(key, f"worker@{number}", "x", ttl_s=60, max_fields=10)
    assert len(world.payloads.notes(key)) <= 10


def test_the_age_of_a_state_is_known_and_decides(world: World) -> None:
    key = reader_key(world.settings.source)
    state = ReaderState(7, "here", "streaming")
    world.payloads.set(key, state.to_json(), ttl_s=TTL_S)
    assert judge(None, ask_redis(world.payloads, world.stream), None, world.stream, 0.0) == []
    # As if it had been written almost as long ago as it lives.
    world.payloads.set(key, state.to_json(), ttl_s=1)
    found = ask_redis(world.payloads, world.stream)
    assert found.reader == state
    assert found.reader_age_s >= TTL_S - 1 >= STALE_S
    (wrong,) = judge(None, found, None, world.stream, 0.0)
    assert wrong.startswith("the reader (process 7 on here) is silent: its last report is 4.")
    until(lambda: ask_redis(world.payloads, world.stream).reader is None, what="the state has expired")
