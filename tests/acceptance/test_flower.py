"""Flower shows each batch by the id that stands in the logs, without its rows; and what it does changes nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
import redis

from outhaul.sink.app import make_app
from tests.acceptance.commands import outhaul
from tests.acceptance.metrics_pages import free_port
from tests.conftest import World, until
from tests.launch import OUTHAUL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARK = "a_kind_that_stands_in_no_message"


class Web:
    """Flower of a world, as a process, and what it shows."""

    def __init__(self, world: World) -> None:
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        with (world.logs / "flower.log").open("wb") as log:
            self.process = subprocess.Popen(
                [OUTHAUL, "flower", "--port", str(port)],
                env={**os.environ, **world.env, "OUTHAUL_FLOWER_UNAUTHENTICATED_API": "true"},
                stdout=log,
                stderr=log,
            )

    def page(self, path: str) -> str:
        with urlopen(f"{self._url}{path}", timeout=10) as answer:
            text: str = answer.read().decode()
        assert MARK not in text
        return text

    def facts(self, path: str) -> Any:
        return json.loads(self.page(path))

    def is_up(self) -> bool:
        assert self.process.poll() is None
        try:
            return bool(self.page("/healthcheck"))
        except OSError:
            return False

    def task(self, task: str, state: str) -> dict[str, Any]:
        """Wait until a task is in a state, and return what the list of tasks has of it."""

        def found() -> Any:
            one = self.facts("/api/tasks").get(task)
            return one if one and one["state"] == state else None

        return dict(until(found, what=f"{task} is {state}"))


@pytest.fixture
def web(world: World, tmp_path: Path) -> Iterator[Web]:
    """A pipeline with its Flower, which receives task events."""
    world.pipeline.start("worker", "reader", OUTHAUL_LOG_LEVEL="DEBUG", OUTHAUL_FAILPOINTS=str(tmp_path))
    made = Web(world)
    try:
        until(made.is_up, what="Flower shows pages")
        # Flower requests events after five seconds. Any client can request them earlier.
        asking = make_app(world.settings).control
        until(lambda: hears(asking), what="the worker answers")
        until(lambda: made.facts("/workers?json=1")["data"], what="Flower lists the worker")
        yield made
    finally:
        made.process.kill()
        made.process.wait()


def hears(asking: Any) -> Any:
    """Request task events from the worker; an old connection of this process may be broken."""
    try:
        return asking.broadcast("enable_events", reply=True, timeout=1)
    except redis.ConnectionError:
        return None


def lines(world: World, process: str, event: str) -> list[dict[str, Any]]:
    """Return the lines of a process' log that have this event."""
    found = (json.loads(line) for line in world.pipeline.log(process).splitlines() if f'"event": "{event}"' in line)
    return [line for line in found if line["event"] == event]


def test_a_batch_is_found_by_its_id_from_the_logs_whatever_becomes_of_it(
    world: World, web: Web, tmp_path: Path
) -> None:
    world.insert(3, MARK)
    world.assert_once_each()
    (sent,) = until(lambda: lines(world, "reader", "batch_sent"), what="the reader's line")
    (done,) = until(lambda: lines(world, "worker", "batch_done"), what="the worker's line")
    assert {name: sent[name] for name in ("task", "batch")} == {name: done[name] for name in ("task", "batch")}
    shown = web.task(sent["task"], "SUCCESS")
    said = f"({world.settings.source} #{sent['batch']}: 3 rows, {sent['first']} to {sent['last']}, into event_log, "
    assert shown["args"].startswith(said)
    assert (shown["name"], shown["kwargs"], shown["retries"]) == ("outhaul.write_batch", "{}", 0)
    assert shown["runtime"] > 0
    assert said in web.page(f"/task/{sent['task']}")
    (worker,) = until(lambda: web.facts("/api/workers?refresh=1"), what="the worker is looked at")
    assert worker in web.page("/")
    assert "outhaul.write_batch" in web.page(f"/worker/{worker}")
    assert f"<td>{world.settings.queue}</td>" in web.page("/broker")

    # It is tried again, and stored.
    (tmp_path / "task.begun").write_text("raise")
    world.insert(1, MARK)
    world.assert_once_each()
    (retrying,) = until(lambda: lines(world, "worker", "batch_retrying"), what="the worker's line")
    retried = web.task(retrying["task"], "SUCCESS")
    assert (retried["retries"], retried["runtime"] > 0) == (1, True)
    assert f"#{retrying['batch']}: 1 rows" in retried["args"]
    assert "a test has assigned" in retried["exception"]

    # It fails, for an operator to mend.
    world.clickhouse.command("RENAME TABLE event_log TO elsewhere")
    world.insert(1, MARK)
    (failed,) = until(lambda: lines(world, "worker", "batch_failed"), what="the worker's line")
    shown = web.task(failed["task"], "FAILURE")
    assert f"#{failed['batch']}: 1 rows" in shown["args"]
    assert "UNKNOWN_TABLE" in shown["exception"]
    world.clickhouse.command("RENAME TABLE elsewhere TO event_log")

    # Without Flower the pipeline works, although the worker still sends task events.
    web.process.terminate()
    assert web.process.wait(10) == 0
    world.pipeline.wait("reader", 30)
    world.pipeline.start("reader")
    world.insert(1, MARK)
    world.assert_once_each()


def test_a_port_that_is_taken_is_one_line(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = outhaul(world, "flower", "--port", str(port), code=3)
    assert said.splitlines()[-1].startswith(f"outhaul: Flower cannot listen on 127.0.0.1:{port}")
