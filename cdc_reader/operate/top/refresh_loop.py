"""Settings -> a screen that is redrawn every second, until q is pressed.

Edge: the clock and the terminal; everything else is in the files beside it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.live import Live

from outhaul.cdc_reader.operate.status.ask import PostgresState
from outhaul.cdc_reader.operate.status.problems import judge
from outhaul.cdc_reader.operate.top.problem_history import ProblemHistory
from outhaul.cdc_reader.operate.top.rates import Growth, Rates
from outhaul.cdc_reader.operate.top.screen import View, is_old, screen
from outhaul.cdc_reader.operate.top.servers import poll_all
from outhaul.cdc_reader.operate.top.terminal import fill, keys

if TYPE_CHECKING:
    from outhaul.cdc_reader.operate.top.polling import Latest
    from outhaul.cdc_reader.operate.top.servers import Servers
    from outhaul.cdc_reader.slots.retained_wal import Slot
    from outhaul.sink.settings import Stream

T = TypeVar("T")


class _History:
    """State that is kept from one screen to the next."""

    def __init__(self) -> None:
        self.rates = Rates()
        self.growth = Growth()
        self.problems = ProblemHistory()
        self.slot: Slot | None = None
        self._seen: dict[str, float | None] = {}

    def is_new(self, latest: Latest[object]) -> bool:
        """Tell whether the answer is another than that of the last screen."""
        is_new = self._seen.get(latest.name) != latest.answered_at
        self._seen[latest.name] = latest.answered_at
        return is_new


def show(stream: Stream, every_s: float) -> None:
    """Draw until q is pressed.

    Raises:
        FatalError: there is no terminal, or a URL is malformed.
    """
    history, console = _History(), Console()
    with keys() as key:
        servers = poll_all(stream, every_s)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            # The first screens follow quickly, until there are answers.
            wait_s = 0.2
            while True:
                fill(console)
                live.update(screen(_view(stream, servers, history, every_s)), refresh=True)
                if key(wait_s) == "q":
                    return
                wait_s = min(every_s, wait_s * 2)


def _view(stream: Stream, servers: Servers, history: _History, every_s: float) -> View:
    postgres, redis, clickhouse = servers.postgres.latest(), servers.redis.latest(), servers.clickhouse.latest()
    now, at = time.time(), time.monotonic()
    if history.is_new(redis) and redis.value and redis.answered_at is not None:
        history.rates.add(redis.answered_at, redis.value.reader)
    if history.is_new(postgres) and postgres.value:
        history.slot = history.growth.add(postgres.value.slot)
    view = View(
        source=stream.settings.source,
        now=now,
        at=at,
        every_s=every_s,
        postgres=postgres,
        redis=redis,
        clickhouse=clickhouse,
        slot=history.slot,
        history=tuple(history.rates.history),
        wrong=(),
        before=(),
    )
    history.problems.add(now, _wrong(stream, view))
    return replace(view, wrong=tuple(history.problems.now), before=tuple(history.problems.past))


def _wrong(stream: Stream, view: View) -> list[str]:
    servers = (view.postgres, view.redis, view.clickhouse)
    errors = [one.error for one in servers if one.error]
    errors += [f"{one.name} does not answer" for one in servers if not one.error and is_old(view, one)]
    postgres = _current(view, view.postgres)
    # With its growth, from which the time until the limit follows.
    postgres = PostgresState(view.slot) if postgres else None
    return errors + judge(postgres, _current(view, view.redis), _current(view, view.clickhouse), stream, view.now)


def _current(view: View, latest: Latest[T]) -> T | None:
    """Return the answer, unless it is old or the latest poll failed."""
    return None if latest.error or is_old(view, latest) else latest.value
