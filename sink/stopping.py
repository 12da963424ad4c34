"""SIGTERM and SIGINT -> a list that loops look at; a wait -> one that ends early.

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
    """Return a list to which every SIGTERM and SIGINT from now on is added, instead of ending the process."""
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, _frame: received.append(signum))
    return received


def sleep_unless(stopping: Callable[[], bool], seconds: float) -> bool:
    """Sleep until `stopping`, called every tenth of a second, returns true; return whether it did."""
    deadline = time.monotonic() + seconds
    while not (stops := stopping()) and (left_s := deadline - time.monotonic()) > 0:
        time.sleep(min(left_s, _TICK_S))
    return stops
