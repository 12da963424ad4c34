"""Options -> writers in threads, and one tally of all, reported while it grows.

Edge: threads and the clock. The first error stops all writers; the tally counts what they wrote until then.
"""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from outhaul import EventError, Outbox
from outhaul.deploy.load.pace import Pace
from outhaul.deploy.load.transaction_plan import transactions
from outhaul.deploy.load.writer import How, Tally, Writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.deploy.load.transaction_plan import Plan

_TELL_S = 0.2


@dataclass(frozen=True, slots=True)
class Options:
    """How to run. `rate` is in events a second, 0 for no limit. `events` and `seconds` end the run; None does not."""

    dsn: str
    table: str
    publication: str
    plan: Plan
    how: How
    writers: int
    rate: float
    events: int | None
    seconds: float | None
    reconnect_s: float


@dataclass(frozen=True, slots=True)
class Result:
    """The tally of a run, its duration, and the error that ended it, if any."""

    tally: Tally
    seconds: float
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the result in JSON types, with the rate in events a second."""
        rate = self.tally.events / self.seconds if self.seconds else 0.0
        return asdict(self.tally) | {"seconds": round(self.seconds, 3), "rate": round(rate, 1), "error": self.error}


def run(options: Options, stop: threading.Event, report: Callable[[Tally, float], None]) -> Result:
    """Write until the options' end or until `stop` is set; `report` gets the tally and the seconds since the start."""
    errors: list[str] = []
    outbox = Outbox(options.table, via="wal" if options.how is How.WAL else "table", publication=options.publication)
    writers = [Writer(options.dsn, outbox, options.how, options.reconnect_s) for _ in range(options.writers)]

    def write(number: int) -> None:
        share = None if options.events is None else _share(options.events, options.writers, number)
        pace = Pace(options.rate / options.writers, time.monotonic())
        try:
            writers[number].run(transactions(options.plan, number, share), pace, stop)
        except (psycopg.Error, EventError) as error:
            if not stop.is_set():
                errors.append(str(error).strip())
                stop.set()

    began = time.monotonic()
    threads = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(options.writers)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seconds = time.monotonic() - began
        if options.seconds is not None and seconds >= options.seconds:
            stop.set()
        report(_sum(writers), seconds)
        threads[0].join(_TELL_S) if threads[0].is_alive() else time.sleep(_TELL_S / 4)
    seconds = time.monotonic() - began
    report(_sum(writers), seconds)
    return Result(_sum(writers), seconds, errors[0] if errors else "")


def _share(events: int, writers: int, number: int) -> int:
    """Return how many of the events writer `number` writes."""
    return events // writers + (number < events % writers)


def _sum(writers: list[Writer]) -> Tally:
    total = Tally()
    for writer in writers:
        total.add(writer.tally)
    return total
