"""Writers as threads -> one tally, told while it grows.

Edge: threads and the clock. The first error ends all of them; what they had done by then is counted.
"""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from outhaul import EventError, Outbox
from outhaul.deploy.load.pace import Pace
from outhaul.deploy.load.plan import transactions
from outhaul.deploy.load.writer import How, Tally, Writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.deploy.load.plan import Plan

_TELL_S = 0.2


@dataclass(frozen=True, slots=True)
class Options:
    """What to do: for so many events or seconds (None is no bound), at `rate` events a second (0: as it goes)."""

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
class Done:
    """What was done, and why it ended early, if it did."""

    tally: Tally
    seconds: float
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON types, with the rate reached."""
        rate = self.tally.events / self.seconds if self.seconds else 0.0
        return asdict(self.tally) | {"seconds": round(self.seconds, 3), "rate": round(rate, 1), "error": self.error}


def run(options: Options, over: threading.Event, tell: Callable[[Tally, float], None]) -> Done:
    """Write until it is done, or over; `tell` hears the tally so far and the seconds."""
    errors: list[str] = []
    outbox = Outbox(options.table, via="wal" if options.how is How.WAL else "table", publication=options.publication)
    made = [Writer(options.dsn, outbox, options.how, options.reconnect_s) for _ in range(options.writers)]

    def write(number: int) -> None:
        share = None if options.events is None else _share(options.events, options.writers, number)
        pace = Pace(options.rate / options.writers, time.monotonic())
        try:
            made[number].run(transactions(options.plan, number, share), pace, over)
        except (psycopg.Error, EventError) as error:
            if not over.is_set():
                errors.append(str(error).strip())
                over.set()

    began = time.monotonic()
    threads = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(options.writers)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seconds = time.monotonic() - began
        if options.seconds is not None and seconds >= options.seconds:
            over.set()
        tell(_sum(made), seconds)
        threads[0].join(_TELL_S) if threads[0].is_alive() else time.sleep(_TELL_S / 4)
    seconds = time.monotonic() - began
    tell(_sum(made), seconds)
    return Done(_sum(made), seconds, errors[0] if errors else "")


def _share(events: int, writers: int, number: int) -> int:
    """Return how many of the events are one writer's."""
    return events // writers + (number < events % writers)


def _sum(made: list[Writer]) -> Tally:
    whole = Tally()
    for writer in made:
        whole.add(writer.tally)
    return whole
