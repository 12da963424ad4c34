"""An hour of trouble is a few lines and a few events; the numbers left out add up."""

from __future__ import annotations

import logging

import pytest
import structlog

from outhaul.sink.errors import TransientError
from outhaul.sink.telemetry.sentry.repeated_errors import APART_S, LASTING_S, Throttle
from outhaul.sink.telemetry.suppression import Suppression


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def hour_of(suppression: Suppression, clock: Clock) -> list[int]:
    """Return the numbers that the lines of an hour have, with a failure every half second."""
    written = []
    for _ in range(7200):
        admitted = suppression.admit("dead")
        if admitted is not None:
            written.append(admitted)
        clock.now += 0.5
    return written


def test_an_hour_of_the_same_line_is_some_lines_that_count_the_others() -> None:
    clock = Clock()
    written = hour_of(Suppression(clock), clock)
    assert written[:3] == [0, 19, 59]
    assert 10 < len(written) < 24
    assert 7200 - 600 <= sum(written) + len(written) <= 7200


def test_what_was_quiet_for_a_while_is_news() -> None:
    clock = Clock()
    suppression = Suppression(clock)
    hour_of(suppression, clock)
    assert suppression.admit("dead") is None
    clock.now += 121
    assert suppression.admit("dead") is not None


def test_lines_of_another_place_or_error_are_written_and_good_news_are_not_counted() -> None:
    processor = Suppression(Clock()).processor

    def write(name: str, **event: object) -> bool:
        try:
            processor(None, name, {"event": "retrying", **event})
        except structlog.DropEvent:
            return False
        return True

    away = TransientError("port 1")
    assert write("warning", where="dispatch", error=away)
    assert not write("warning", where="dispatch", error=TransientError("port 2"))
    assert write("warning", where="reports", error=away)
    assert write("warning", where="dispatch", error=TransientError("other", code=252))
    assert [write("info"), write("info")] == [True, True]


def test_lines_of_libraries_are_counted_by_their_form() -> None:
    clock = Clock()
    suppression = Suppression(clock)

    def record(number: int) -> logging.LogRecord:
        return logging.LogRecord("celery", logging.ERROR, "", 0, "try %d", (number,), None)

    assert [suppression.filter(record(number)) for number in range(3)] == [True, False, False]
    clock.now = 10
    last = record(3)
    assert suppression.filter(last)
    assert last.getMessage() == "try 3 (repeated=2)"


def test_an_hour_of_one_trouble_is_four_events_and_the_first_comes_when_it_has_lasted() -> None:
    clock = Clock()
    throttle = Throttle(clock, quiet_s=100)
    told_at = []
    times = 0
    while clock.now < 3600:
        telling = throttle.add("dead", at_once=False)
        if telling is not None:
            told_at.append(clock.now)
            times += telling.times
        clock.now += 1
    assert told_at == [LASTING_S + APART_S * number for number in range(4)]
    assert times == told_at[-1] + 1


@pytest.mark.parametrize("is_over", [True, False])
def test_a_problem_that_comes_back_has_to_last_again(is_over: bool) -> None:
    clock = Clock()
    throttle = Throttle(clock, quiet_s=100)
    throttle.add("dead", at_once=False)
    if is_over:
        throttle.recovered()
    clock.now = LASTING_S
    assert (throttle.add("dead", at_once=False) is None) == is_over


def test_an_error_that_stops_a_process_is_reported_at_once_and_seldom() -> None:
    clock = Clock()
    throttle = Throttle(clock, quiet_s=100)
    assert throttle.add("stop", at_once=True) is not None
    assert throttle.add("stop", at_once=True) is None
    assert throttle.add("another", at_once=True) is not None
    clock.now = APART_S
    telling = throttle.add("stop", at_once=True)
    assert telling is not None
    assert telling.times == 2
