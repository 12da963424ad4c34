"""What `outhaul top` makes of looks: rates of one life of a reader, what was wrong and is not, one screen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from outhaul.cdc_reader.operate.status.ask import ClickHouseState, PostgresState, RedisState
from outhaul.cdc_reader.operate.top.polling import Latest
from outhaul.cdc_reader.operate.top.problem_history import Problem, ProblemHistory
from outhaul.cdc_reader.operate.top.rates import Growth, Rate, Rates
from outhaul.cdc_reader.operate.top.screen import View, is_old, screen
from outhaul.cdc_reader.session.pause import Pause
from outhaul.cdc_reader.session.reader_state import ReaderState
from outhaul.cdc_reader.slots.retained_wal import Slot

NOW = 1_800_000_000.0
HUGE = 10**15


def reader(**given: Any) -> ReaderState:
    values: dict[str, Any] = {
        "pid": 4_194_304,
        "host": "a-host-with-a-long-name.internal.example.com",
        "phase": "reconnecting",
        "epoch": HUGE,
        "received_lsn": "FFFFFFFF/FFFFFFFF",
        "confirmed_lsn": "FFFFFFFF/FFFFFFFF",
        "in_flight_batches": 64,
        "in_flight_rows": HUGE,
        "in_flight_bytes": HUGE,
        "events_captured": 0,
        "events_stored": 0,
        "events_left_out": 0,
        "dead_letters": HUGE,
        "lag_s": 123_456.7,
        "p50_ms": 123_456.0,
        "p99_ms": None,
        "last_stored_at": None,
        "trouble": "",
        "pause": None,
    }
    return ReaderState(**values | given)


SLOT = Slot(
    active=False,
    active_pid=None,
    plugin="pgoutput",
    database="d",
    confirmed_lsn="FFFFFFFF/FFFFFFFF",
    wal_status="unreserved",
    safe_wal_size=HUGE,
    retained_bytes=HUGE,
    behind_bytes=HUGE,
    max_slot_wal_keep_size=HUGE,
    invalidation_reason="wal_removed",
    inactive_since="2026-01-01 00:00:00+00",
    looked_at=1000.0,
    inactive_s=90_000.0,
    growth_bytes_s=123_456_789.0,
    time_to_trouble_s=100.0,
)
STORED = ClickHouseState(
    HUGE, HUGE, 100_000, HUGE, NOW - 5, True, Pause(NOW, "somebody@host", "an upgrade [of it]", None)
)


def view(**given: Any) -> View:
    values: dict[str, Any] = {
        "source": "outhaul",
        "now": NOW,
        "at": 100.0,
        "every_s": 1.0,
        "postgres": Latest("Postgres", PostgresState(SLOT), 99.5, 99.5),
        "redis": Latest("Redis", RedisState(reader(), None, None, HUGE, False), 99.5, 99.5),
        "clickhouse": Latest("ClickHouse", STORED, 99.5, 99.5),
        "slot": SLOT,
        "history": tuple(Rate(float(n), None) for n in range(200)),
        "wrong": (),
        "before": (),
    }
    return View(**values | given)


def lines(shown: View, width: int, height: int = 1000) -> list[str]:
    console = Console(width=width, height=height, no_color=True)
    with console.capture() as capture:
        console.print(screen(shown))
    return [line.rstrip() for line in capture.get().rstrip().splitlines()]


def test_a_rate_is_of_one_life_of_one_reader() -> None:
    rates = Rates()
    assert rates.now == Rate()
    for second in range(10):
        rates.add(second, reader(events_captured=100 * second, events_stored=50 * second))
    assert rates.now == Rate(100.0, 50.0)
    # Another session continues the counters, another process starts at 0; so does one that has the same PID.
    rates.add(10, reader(events_captured=7, pid=2))
    assert rates.now == Rate()
    rates.add(12, reader(events_captured=27, pid=2))
    assert rates.now == Rate(10.0, 0.0)
    rates.add(13, reader(events_captured=3, pid=2))
    assert rates.now == Rate()
    rates.add(14, None)
    assert rates.now == Rate()
    assert len(rates.history) == 14


def test_a_rate_forgets_what_is_long_ago() -> None:
    rates = Rates()
    for second in range(100):
        rates.add(second, reader(events_captured=min(second, 50) * 100))
    assert rates.now.captured == 0.0


def test_growth_is_over_the_last_seconds() -> None:
    growth = Growth()
    first = replace(SLOT, growth_bytes_s=None, time_to_trouble_s=None, retained_bytes=0, behind_bytes=0)
    assert growth.add(first) == first
    found = growth.add(replace(first, looked_at=1002.0, retained_bytes=200, behind_bytes=200))
    assert found is not None
    assert found.growth_bytes_s == 100.0
    assert growth.add(None) is None
    assert growth.add(first) == first


def test_a_trouble_has_a_beginning_and_is_remembered_when_it_is_over() -> None:
    problems = ProblemHistory()
    problems.add(1.0, ["slot 'a' at 0/1F keeps 1.5 MB more"])
    problems.add(2.0, ["slot 'a' at 0/2F keeps 2 kB more", "another"])
    assert problems.now == [Problem("slot 'a' at 0/2F keeps 2 kB more", 1.0, 2.0), Problem("another", 2.0, 2.0)]
    assert problems.past == []
    problems.add(3.0, [])
    assert problems.now == []
    assert sorted(problem.since for problem in problems.past) == [1.0, 2.0]
    problems.add(4.0, ["another"])
    assert problems.now == [Problem("another", 4.0, 4.0)]


@pytest.mark.parametrize("width", [80, 140])
def test_the_largest_figures_fit_the_width_and_leave_room_for_what_is_wrong(width: int) -> None:
    wrong = (Problem("slot [of this] has wal_status lost [/red]", NOW - 60, NOW),)
    before = tuple(Problem(f"problem {number}", NOW - 100, NOW - 90) for number in range(20))
    shown = lines(view(wrong=wrong, before=before), width)
    assert max(map(len, shown)) <= width
    text = "\n".join(shown)
    assert "slot [of this] has wal_status lost [/red]" in text
    assert "1 wrong" in shown[0]
    assert shown[0].endswith("q quits")
    assert next(at for at, line in enumerate(shown) if line.startswith("wrong")) < 24
    assert "an upgrade [of it]" in " ".join(text.split())


def test_what_is_old_says_so_and_what_is_unknown_is_a_dash() -> None:
    old = view(postgres=Latest("Postgres", PostgresState(SLOT), 80.0, 80.0))
    assert is_old(old, old.postgres)
    assert "(20 s old)" in "\n".join(lines(old, 200))
    unknown = view(
        postgres=Latest("Postgres"), redis=Latest("Redis"), clickhouse=Latest("ClickHouse"), slot=None, history=()
    )
    shown = lines(unknown, 80)
    assert [line.split()[-1] for line in shown if line.startswith(("slot", "queue", "ClickHouse", "captured"))] == [
        "-"
    ] * 4
    assert "asking" in shown[0]
    silent = view(postgres=Latest("Postgres", asked_at=90.0))
    assert is_old(silent, silent.postgres)
    fine = lines(view(), 80)
    assert "fine" in fine[0]
    assert not [line for line in fine if line.startswith(("wrong", "before")) or "more" in line]


def test_a_chart_shows_the_newest_at_the_right_and_the_least_that_is_not_nothing() -> None:
    history = tuple(Rate(value, value) for value in (0.0, None, 1.0, 1000.0))
    captured = next(line for line in lines(view(history=history), 80) if line.startswith("captured"))
    assert "1,000/s" in captured
    assert captured.rstrip().endswith("  ▁█")


def test_growth_in_a_short_look_names_no_hour() -> None:
    growth = Growth()
    first = replace(SLOT, growth_bytes_s=None, time_to_trouble_s=None, retained_bytes=0, behind_bytes=0)
    growth.add(first)
    told = [
        growth.add(replace(first, looked_at=1000.0 + second, retained_bytes=second * 100, behind_bytes=second * 100))
        for second in (1, 5)
    ]
    assert [slot and slot.time_to_trouble_s is not None for slot in told] == [False, True]


@pytest.mark.parametrize("height", [8, 12, 24])
def test_on_a_small_terminal_each_trouble_is_shorter_before_one_is_left_out(height: int) -> None:
    wrong = tuple(Problem(f"{number} " + "is very wrong " * 20, NOW - 60, NOW) for number in range(3))
    shown = lines(view(wrong=wrong, before=wrong), 80, height)
    assert len(shown) <= height
    for number in range(3):
        assert any(f"since 07:59:00  {number} is very wrong" in line for line in shown), number
    assert any(line.endswith("…") for line in shown)
    assert shown[2].startswith("captured")


def test_what_has_no_room_is_counted() -> None:
    wrong = tuple(Problem(f"{number} is wrong", NOW - 60, NOW) for number in range(40))
    shown = lines(view(wrong=wrong), 80, 24)
    assert len(shown) <= 24
    said = sum(" is wrong" in line for line in shown)
    assert shown[-1].strip() == f"… and {40 - said} more"


def test_with_room_each_trouble_is_whole() -> None:
    wrong = (Problem("is very wrong " * 40, NOW - 60, NOW),)
    shown = lines(view(wrong=wrong, before=wrong), 140, 45)
    assert " ".join(" ".join(shown).split()).count("is very wrong") == 80
    assert not any(line.endswith("…") for line in shown)
