"""An exception that nobody foresaw reaches the listener of its process from any line of the log; others do not."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import kombu.exceptions
import pytest
import redis
import structlog
from billiard.exceptions import SoftTimeLimitExceeded, WorkerLostError

from outhaul.sink.errors import FatalError, TransientError
from outhaul.sink.telemetry import logs, unexpected

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException]]:
    """What the listener hears while a process logs as it does in production."""
    found: list[BaseException] = []
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    monkeypatch.setattr(unexpected, "_listen", found.append)
    monkeypatch.setattr(unexpected, "_lost_at", float("-inf"))
    logs.configure("json", level="INFO")
    yield found
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


def test_each_occurrence_is_noted_though_its_line_is_suppressed(heard: list[BaseException]) -> None:
    ours, library = structlog.get_logger("outhaul.sink"), logging.getLogger("celery.app.trace")
    for _ in range(3):
        try:
            dict[str, int]()["x"]
        except KeyError:
            ours.exception("task_failed")
            library.exception("Task failed")
    assert [type(error) for error in heard] == [KeyError] * 6


def test_an_exception_is_found_where_a_library_puts_it(heard: list[BaseException]) -> None:
    log = logging.getLogger("celery.worker.request")
    log.error("Task handler raised error: %r", KeyError("x"))
    log.error("Failed: %s", "x", exc_info=ValueError("y"))
    log.warning("Failed: %r", KeyError("x"))
    log.error("%(a)s", {"a": 1})
    assert [type(error) for error in heard] == [KeyError, ValueError]


@pytest.mark.parametrize(
    "error",
    [
        FatalError("x"),
        TransientError("x"),
        ConnectionResetError("x"),
        TimeoutError("x"),
        redis.ConnectionError("x"),
        kombu.exceptions.OperationalError("x"),
        SoftTimeLimitExceeded(),
        SystemExit(1),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_outhaul_or_celery_handle_is_not_unexpected(heard: list[BaseException], error: BaseException) -> None:
    logging.getLogger("celery").error("%r", error, exc_info=error)
    structlog.get_logger("outhaul").error("x", exc_info=error)
    assert heard == []


def test_a_file_that_is_missing_is_unexpected(heard: list[BaseException]) -> None:
    structlog.get_logger("outhaul").error("x", exc_info=FileNotFoundError(2, "No such file", "sql/x"))
    assert len(heard) == 1


def test_one_killed_process_of_the_pool_is_expected_and_a_second_one_is_not(heard: list[BaseException]) -> None:
    for _ in range(2):
        logging.getLogger("celery").error("%r", WorkerLostError("signal 9"))
    assert len(heard) == 1


def test_what_the_listener_logs_does_not_reach_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[BaseException] = []

    def listen(error: BaseException) -> None:
        times.append(error)
        unexpected.note(KeyError("in the listener"))

    monkeypatch.setattr(unexpected, "_listen", listen)
    unexpected.note(KeyError("x"))
    assert len(times) == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("first\nsecond"), "RuntimeError: first"),
        (KeyError(), "KeyError"),
        (
            RuntimeError("\n\n a \x1b[31m\u202e"),
            "RuntimeError: a \N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}",
        ),
        (RuntimeError("x" * 1000), "RuntimeError: " + "x" * 286),
    ],
)
def test_the_first_line_of_an_exception_is_short_and_printable(error: Exception, line: str) -> None:
    assert unexpected.first_line(error) == line
