"""An exception that nobody foresaw, wherever it is raised, is named by `status` with its first line within seconds."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from outhaul.cdc_reader.operate.doctor import worker_checks
from outhaul.cdc_reader.operate.doctor.finding import State
from outhaul.sink.errors import Exit
from tests import launch
from tests.acceptance.metrics_pages import Pages, free_port
from tests.acceptance.sentry_listener import Listener
from tests.conftest import World, until
from tests.faults.test_broken import FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def listener() -> Iterator[Listener]:
    one = Listener()
    yield one
    one.close()


def status(world: World) -> dict[str, Any]:
    done = launch.run("status", "--json", env=world.env)
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == bool(found["wrong"])
    return found


def wrong(world: World, *words: str) -> bool:
    return any(all(word in line for word in words) for line in status(world)["wrong"])


def lay(world: World, point: str, action: str) -> None:
    partial = world.logs / f".{point}"
    partial.write_text(action)
    partial.rename(world.logs / point)


def in_findings(world: World, check: str) -> str:
    facts = worker_checks.ask(world.settings)
    return " ".join(str(one) for one in worker_checks.judge(facts, world.settings) if one.check == check)


def test_an_exception_in_a_task_reaches_everybody_and_costs_no_event(
    make_world: Callable[..., World], listener: Listener
) -> None:
    world = make_world(pool=True, fork=False)
    env = {"OUTHAUL_FAILPOINTS": str(world.logs), "OUTHAUL_SENTRY_DSN": listener.dsn}
    pages = Pages({"worker": free_port(), "exporter": free_port()})
    for name, port in pages.ports.items():
        world.pipeline.start(name, OUTHAUL_METRICS_PORT=str(port), **env)
    world.pipeline.start("reader", **env)
    world.insert(3)
    world.assert_once_each()
    lay(world, "task.fetched", "bug")
    world.insert(3)
    until(lambda: wrong(world, "the worker on", "RuntimeError: nobody foresaw task.fetched"), what="status names it")
    until(
        lambda: wrong(
            world, "the reader on", "ended", "failed unexpectedly: RuntimeError: nobody foresaw task.fetched"
        ),
        what="status says with what the reader ended",
    )
    assert "second line" not in str(status(world))
    until(
        lambda: (pages.value("worker", "outhaul_worker_errors_total", kind="unexpected") or 0) > 0,
        what="the worker counts it",
    )
    until(
        lambda: pages.value("exporter", "outhaul_unexpected_failures", process="worker"), what="the exporter counts it"
    )
    until(
        lambda: any(tags["outhaul.process"] == "worker" and tags["level"] == "error" for tags in listener.tags()),
        what="Sentry gets it",
    )
    assert "RuntimeError: nobody foresaw task.fetched" in in_findings(world, "unexpected errors")
    assert until(world.pipeline._processes["reader"].poll, what="the reader ends") == Exit.NOT_FINE
    world.pipeline.start("reader", **env)
    world.assert_once_each()
    # What was is shown for some minutes, and what the reader ended with is over.
    assert wrong(world, "the worker on", "failed unexpectedly")
    assert not wrong(world, "the reader on", "ended")


@pytest.mark.parametrize(
    ("point", "process"),
    [
        ("dispatch.begin", "reader"),
        pytest.param("recovery.asked", "reader", marks=pytest.mark.thorough),
        pytest.param("reader.stored", "reader", marks=pytest.mark.thorough),
    ],
)
def test_an_exception_in_a_thread_of_the_reader_is_named(
    make_world: Callable[..., World], point: str, process: str
) -> None:
    world = make_world(fork=False)
    lay(world, point, "bug")
    world.pipeline.start("worker")
    world.pipeline.start("reader", OUTHAUL_FAILPOINTS=str(world.logs))
    world.insert(3)
    until(lambda: wrong(world, f"the {process} on", f"RuntimeError: nobody foresaw {point}"), what="status names it")


@pytest.mark.parametrize(
    ("broken", "process", "line"),
    [
        ("collectors", "exporter", "ZeroDivisionError: nobody foresaw this figure"),
        pytest.param("imports", "watchdog", "outhaul.sink.letters.retry_task", marks=pytest.mark.thorough),
        pytest.param("pulse", "worker", "ZeroDivisionError: nobody foresaw this pulse", marks=pytest.mark.thorough),
    ],
)
def test_an_exception_in_another_process_is_named(
    make_world: Callable[..., World], broken: str, process: str, line: str
) -> None:
    world = make_world(pool=True, fork=False)
    env = {"PYTHONPATH": FOLDER, "OUTHAUL_TEST_BROKEN": broken}
    if process == "exporter":
        world.pipeline.start("exporter", OUTHAUL_METRICS_PORT=str(free_port()), **env)
    else:
        world.pipeline.start("worker", **env)
        world.pipeline.start("reader")
        world.insert(1)
    until(lambda: wrong(world, f"the {process} on", line), what="status names it")


@pytest.mark.thorough
def test_a_retry_of_dead_letters_says_with_what_a_worker_failed(make_world: Callable[..., World]) -> None:
    world = make_world(pool=True, fork=False)
    world.pipeline.start("worker", "reader", OUTHAUL_FAILPOINTS=str(world.logs))
    world.conn.execute(
        "INSERT INTO outbox (event_type, event_date_time, environment, event_context) "
        "VALUES ('timed', 'infinity', 'test', '{}')"
    )
    until(lambda: world.ch("SELECT count() FROM event_log_dead_letters"), what="a letter is there")
    lay(world, "letters.inserted", "bug")
    done = launch.run("dlq", "retry", "--all", "--json", env=world.env)
    assert done.returncode == 1
    assert "RuntimeError: nobody foresaw letters.inserted" in done.stdout
    assert wrong(world, "the worker on", "RuntimeError: nobody foresaw letters.inserted")


@pytest.mark.thorough
def test_an_exception_in_a_page_of_flower_is_named(make_world: Callable[..., World]) -> None:
    world, port = make_world(), free_port()
    with (world.logs / "flower.log").open("wb") as log:
        flower = subprocess.Popen(
            [launch.OUTHAUL, "flower", "--port", str(port)],
            env=world.env | {"PYTHONPATH": FOLDER, "OUTHAUL_TEST_BROKEN": "flower", "PATH": "/usr/bin:/bin"},
            stdout=log,
            stderr=log,
        )

    def fails() -> bool:
        try:
            urlopen(f"http://127.0.0.1:{port}/healthcheck", timeout=10).close()
        except HTTPError:
            return True
        except OSError:
            return False
        return False

    try:
        until(fails, what="the page fails")
        until(
            lambda: wrong(world, "the flower on", "ZeroDivisionError: nobody foresaw this page"), what="status names it"
        )
    finally:
        flower.terminate()
        flower.wait(30)


def test_the_doctor_sends_a_task_the_whole_way_and_leaves_nothing_behind(running_pool: World) -> None:
    running_pool.insert(3)
    running_pool.assert_once_each()
    parts = "SELECT count() FROM system.parts WHERE database = currentDatabase() AND table LIKE 'event_log%'"
    before = running_pool.ch(parts), running_pool.stored()
    facts = until(lambda: (found := worker_checks.ask(running_pool.settings)).probe and found, what="a worker answers")
    assert facts.probe.error == ""
    assert facts.probe.seconds > 0
    assert worker_checks.way(facts).state is State.PASS
    assert (running_pool.ch(parts), running_pool.stored()) == before


@pytest.mark.thorough
def test_the_doctor_says_what_a_worker_cannot_do(make_world: Callable[..., World]) -> None:
    world = make_world(pool=True, fork=False)
    world.pipeline.start("worker", OUTHAUL_FAILPOINTS=str(world.logs))
    until(lambda: worker_checks.ask(world.settings).probe, what="a worker answers")
    lay(world, "probe.begun", "bug")
    finding = worker_checks.way(worker_checks.ask(world.settings))
    assert finding.state is State.FAIL
    assert "RuntimeError: nobody foresaw probe.begun" in finding.found
    lay(world, "probe.begun", "hold:15")
    silent = worker_checks.ask(world.settings)
    assert silent.probe is None
    assert worker_checks.way(silent).state is not State.PASS


@pytest.mark.slow
def test_a_loop_that_stands_is_no_reader_that_streams(make_world: Callable[..., World]) -> None:
    """The thread that publishes the state goes on, but what it has is old."""
    world = make_world(fork=False)
    world.pipeline.start("worker")
    world.pipeline.start("reader", OUTHAUL_FAILPOINTS=str(world.logs))
    world.insert(1)
    world.assert_once_each()
    lay(world, "reader.stored", "hold:60")
    world.insert(1)
    until(lambda: wrong(world, "does not report to Redis"), within_s=40, what="status tells")


def test_a_killed_reader_does_not_stream_a_moment_later(running: World) -> None:
    running.pipeline.signal("reader", signal.SIGKILL)
    found = until(lambda: (one := status(running)) and not one["slot"]["active"] and one, what="the session is over")
    assert found["wrong"]
    assert found["reader"] is None or found["reader_age_s"] > 0
