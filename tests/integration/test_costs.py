"""What a batch costs on its way, counted on the real servers: Redis commands, messages, requests to ClickHouse.

Counts do not depend on the machine, so one that grows fails here; how long things take is the benchmark's business.
"""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import redis
import urllib3

from outhaul.cdc_reader.capture.assemble import Assembled
from outhaul.cdc_reader.capture.dispatch import Dispatcher
from outhaul.cdc_reader.session.ledger import Ledger
from outhaul.sink.app import make_app
from outhaul.sink.batch import Message
from outhaul.sink.redis.payloads import COMMANDS
from outhaul.sink.redis_keys import celery_prefix
from tests.acceptance.commands import outhaul
from tests.conftest import World, until
from tests.integration.test_exactly_once import batch_of, message_of, own, put, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

# What goes on at any time, batch or not: both sides' signs of life, and waiting for messages and reports.
_BY_THE_CLOCK = {
    "BRPOP",
    "BLPOP",
    "LLEN",
    "MGET",
    "PUBLISH",
    "SUBSCRIBE",
    "PING",
    "INFO",
    "MONITOR",
    "CLIENT",
    "HELLO",
    "ECHO",
}
_BATCHES = 8


def catch_up(world: World, commands: list[str]) -> None:
    """Wait until the monitor has told all that was asked before; it is late on a busy machine."""
    mark = secrets.token_hex(8)
    with redis.Redis.from_url(world.env["OUTHAUL_REDIS_URL"]) as client:
        client.echo(mark)
    until(lambda: f"ECHO {mark}" in commands, what="the monitor has caught up")


@pytest.fixture
def commands(world: World) -> Iterator[list[str]]:
    """Everything that anybody asks this test's Redis database from now on."""
    seen: list[str] = []
    url = world.env["OUTHAUL_REDIS_URL"]
    database = int(url.rsplit("/", 1)[1])
    end = secrets.token_hex(8)
    # No timeout: after one, redis-py closes the connection, and a server without users sends nothing for seconds.
    client = redis.Redis.from_url(url, socket_timeout=None)

    def listen() -> None:
        with client.monitor() as monitor:  # type: ignore[no-untyped-call]
            while True:
                command: dict[str, Any] = monitor.next_command()
                if end in command["command"]:
                    return
                if command["db"] == database:
                    seen.append(command["command"])

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    until(lambda: (client.ping(), seen)[1], what="the monitor listens")
    yield seen
    client.echo(end)
    thread.join(60)
    client.close()
    assert not thread.is_alive()


def test_a_dispatch_is_two_redis_commands(world: World, commands: list[str]) -> None:
    dispatcher = Dispatcher(make_app(world.settings), world.payloads, world.clickhouse, world.stream.lane)
    ledger = Ledger(resend_max_s=60)
    entries = []
    for number in range(_BATCHES):
        batch = batch_of(world, rows(2, lsn=100 + number))
        message = Message.of(batch, source=world.settings.source, epoch=1, owner="me", sequence=number, attempt=0)
        entries.append(ledger.add(message, Assembled(batch, None, np.zeros(2, np.int64)), 0.0))
    # The first also opens connections and declares the queue.
    dispatcher.send(entries[0].message, entries[0].assembled)
    until(lambda: any(line.startswith("LPUSH") for line in commands), what="the first message is seen")
    commands.clear()
    for entry in entries[1:]:
        dispatcher.send(entry.message, entry.assembled)
    until(lambda: sum(line.startswith("LPUSH") for line in commands) == _BATCHES - 1, what="all messages are seen")
    assert Counter(line.split()[0] for line in commands) == {"SET": _BATCHES - 1, "LPUSH": _BATCHES - 1}


def test_a_batch_from_the_slot_to_clickhouse_is_one_message_and_few_redis_commands(
    world: World, commands: list[str]
) -> None:
    world.pipeline.start("worker", "reader")
    until(lambda: (state := world.reader_state()) and state.phase == "streaming", what="the reader streams")
    # Each of the worker's two processes opens its connections with its first batch.
    for number in range(4):
        world.insert()
        until(lambda wanted=number + 1: world.stored() == wanted, what="the event is stored")  # type: ignore[misc]
    before = world.stored()
    catch_up(world, commands)
    commands.clear()
    for number in range(_BATCHES):
        world.insert()
        until(lambda wanted=before + number + 1: world.stored() == wanted, what="the event is stored")  # type: ignore[misc]
    until(lambda: not (state := world.reader_state()) or not state.in_flight_batches, what="all is reported")
    catch_up(world, commands)
    seen = [line for line in commands if line.split()[0] not in _BY_THE_CLOCK and ":reader " not in line]
    assert sum(line.startswith(f"LPUSH {world.settings.queue_key}") for line in seen) == _BATCHES
    per_batch = len(seen) / _BATCHES
    print(f"{per_batch:.1f} Redis commands a batch", Counter(line.split()[0] for line in seen))
    # 29 here, a third of them Celery's own, which are transactions of four.
    assert per_batch <= 34


@pytest.mark.thorough
def test_a_pipeline_at_rest_asks_redis_less_than_twenty_times_a_second(world: World, commands: list[str]) -> None:
    world.pipeline.start("worker", "reader")
    until(lambda: (state := world.reader_state()) and state.phase == "streaming", what="the reader streams")
    world.insert()
    until(lambda: world.stored() == 1, what="the event is stored")
    commands.clear()
    # The reader publishes its state once a second.
    seconds = 6
    states = f"SET outhaul:{{{world.settings.source}}}:reader "
    until(lambda: sum(line.startswith(states) for line in commands) >= seconds, what="time passes")
    assert len(commands) < 20 * seconds


def test_each_command_that_redis_receives_is_among_those_that_are_checked_at_the_start(
    world: World, commands: list[str]
) -> None:
    world.pipeline.start("worker", "reader")
    world.insert()
    world.assert_once_each()
    outhaul(world, "doctor", code=0)
    world.pipeline.stop()
    # What opens, looks at or measures a connection; the checks themselves; and what a server may lack.
    others = {"AUTH", "CLIENT", "COMMAND", "ECHO", "HELLO", "INFO", "LMOVE", "PING", "SELECT"}
    seen = {line.split()[0].upper() for line in commands}
    assert seen - others <= set(COMMANDS)
    print("not seen here:", sorted(set(COMMANDS) - seen))


def test_task_events_are_off_until_somebody_asks_for_them(world: World) -> None:
    with redis.Redis.from_url(world.env["OUTHAUL_REDIS_URL"]) as client, client.pubsub() as heard:
        database = world.env["OUTHAUL_REDIS_URL"].rsplit("/", 1)[1]
        heard.psubscribe(f"{celery_prefix(world.settings.source)}/{database}.celeryev/task*")
        assert heard.get_message(timeout=5)["type"] == "psubscribe"
        world.pipeline.start("worker", "reader")
        world.insert()
        until(lambda: not (state := world.reader_state()) or state.events_stored == 1, what="the event is reported")
        until(lambda: world.stored() == 1, what="the event is stored")
        assert heard.get_message(timeout=1) is None
        # A worker receives the request once it has started; Flower, too, repeats it.
        asking = make_app(world.settings).control
        until(lambda: asking.broadcast("enable_events", reply=True, timeout=1), what="the worker answers")
        world.insert()
        message = heard.get_message(timeout=30)
        assert message is not None
        assert b"celeryev/task" in message["channel"]


def test_an_insert_is_one_request(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    own(world)
    batch = batch_of(world, rows(100))
    put(world, message_of(world, batch), batch)
    requests: list[str] = []
    urlopen = urllib3.HTTPConnectionPool.urlopen

    def counting(pool: urllib3.HTTPConnectionPool, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        requests.append(f"{method} {url}")
        return urlopen(pool, method, url, *args, **kwargs)

    monkeypatch.setattr(urllib3.HTTPConnectionPool, "urlopen", counting)
    other = batch_of(world, rows(100, lsn=501))
    put(world, message_of(world, other), other)
    assert len(requests) == 1
    assert world.stored() == 200
