"""SIGTERM, SIGINT and SIGHUP -> a list that loops look at; a wait -> one that ends early.

Edge: signals and the clock.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_TICK_S = 0.1


def stop_signals() -> list[int]:
    """Return a list to which every signal to stop from now on is added, instead of ending the process."""
    received: list[int] = []
    on_stop(received.append)
    return received


def on_stop(stop: Callable[[int], None]) -> None:
    """Call `stop` with the number of every signal to stop from now on.

    A terminal that is closed sends SIGHUP. It is left alone if the process was started with `nohup`.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda signum, _frame: stop(signum))


def sleep_unless(stopping: Callable[[], bool], seconds: float) -> bool:
    """Sleep until `stopping`, called every tenth of a second, returns true; return whether it did."""
    deadline = time.monotonic() + seconds
    while not (stops := stopping()) and (left_s := deadline - time.monotonic()) > 0:
        time.sleep(min(left_s, _TICK_S))
    return stops
