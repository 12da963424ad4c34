"""Two releases side by side: what the one before wrote is read, and what the next one writes waits for its worker."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
import redis

from outhaul.sink.batch import MESSAGE_VERSION
from tests import releases
from tests.acceptance.commands import outhaul
from tests.acceptance.metrics_pages import start
from tests.conftest import World, until

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "of all processes, of each release"


def streams(world: World) -> None:
    until(lambda: (state := world.reader_state()) and state.phase in {"streaming", "waiting"}, what="reader streams")


def waiting(world: World) -> dict[str, Any]:
    """Return the message at the head of the queue."""
    client = redis.Redis.from_url(world.env["OUTHAUL_REDIS_URL"])
    item = until(lambda: client.lindex(world.settings.queue_key, -1), what="a message waits")
    client.close()
    found: dict[str, Any] = json.loads(base64.b64decode(json.loads(item)["body"]))[0][0]
    return found


def set_aside(world: World) -> None:
    """Commit an event that becomes a dead letter."""
    world.conn.execute(
        "INSERT INTO outbox (event_type, event_date_time, environment, event_context) "
        "VALUES ('timed', 'infinity', 'test', '{}')"
    )
    until(lambda: world.ch("SELECT count() FROM event_log_dead_letters") == 1, what="a dead letter")


@pytest.mark.thorough
def test_a_worker_stores_what_a_reader_of_the_release_before_sends_and_retries_what_its_commands_ask_for(
    make_world: Callable[..., World],
) -> None:
    world = make_world(message_key=KEY)
    world.pipeline.start("reader", **releases.before())
    streams(world)
    world.insert(20)
    assert waiting(world)["version"] == MESSAGE_VERSION - 1
    world.pipeline.start("worker")
    world.insert(20)
    world.assert_once_each()
    set_aside(world)
    # ClickHouse cannot hold it still, which a worker says that has read the order.
    answer = json.loads(outhaul(world, "dlq", "retry", "--all", "--json", code=1, **releases.before()).splitlines()[0])
    assert len(answer["refused"]) == 1
    world.pipeline.stop("reader")
    world.pipeline.start("reader")
    world.insert(20)
    world.assert_once_each(dead=1)


@pytest.mark.thorough
def test_a_batch_of_a_newer_reader_waits_for_a_worker_that_can_read_it_and_is_stored_once(
    make_world: Callable[..., World],
) -> None:
    world = make_world(message_key=KEY)
    pages = start(world, "worker")
    world.pipeline.start("reader", **releases.after())
    streams(world)
    confirmed = world.confirmed()
    world.insert(20)
    refused = {"outcome": "other_version"}
    until(
        lambda: (pages.value("worker", "outhaul_worker_tasks_total", **refused) or 0) > 1,
        what="it is refused, sent again, and refused again",
    )
    assert (world.stored(), world.confirmed()) == (0, confirmed)
    said = "a batch message of version 4 came to a worker that reads 2 and 3: the worker is older than the sender"
    for log in (world.pipeline.log("worker"), world.pipeline.log("reader")):
        assert said in log
        assert "Upgrade the workers" in log
    trouble = until(lambda: (state := world.reader_state()) and state.trouble, what="the reader's state says so")
    assert trouble == f"{said}. Upgrade the workers"
    # As in an upgrade with both at work: neither knows which of them takes a message.
    world.pipeline.start("worker-2", **releases.after())
    world.assert_once_each()
    world.insert(7)
    world.assert_once_each()
    until(lambda: world.confirmed() > confirmed, what="the slot moves on")
    assert "session_ended" not in world.pipeline.log("reader")
    # Commands are of the readers' release; what an older worker cannot do it says, and the letter stays.
    set_aside(world)
    world.assert_once_each(dead=1)
    world.pipeline.stop("worker-2")
    printed = outhaul(world, "dlq", "retry", "--all", "--json", code=1, **releases.after())
    assert "Upgrade the workers" in "".join(json.loads(printed.splitlines()[0])["failed"].values())
    assert world.ch("SELECT count() FROM event_log_dead_letters") == 1
