"""Queries that want to run -> at most so many at a time.

Edge: makes threads wait. What does not get a turn in time is told so, as ClickHouse would.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from outhaul.deploy.local.front.sql_statement import StatementError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Slots:
    """How many queries may run at a time; the others wait for a while."""

    def __init__(self, most: int, wait_s: float) -> None:
        self._free = threading.Semaphore(most)
        self._most = most
        self._wait_s = wait_s
        self._idle = threading.Condition()
        self._running = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold one slot.

        Raises:
            StatementError: none became free in time.
        """
        if not self._free.acquire(timeout=self._wait_s):
            raise StatementError(
                202, "TOO_MANY_SIMULTANEOUS_QUERIES", f"Too many simultaneous queries. Maximum: {self._most}"
            )
        with self._idle:
            self._running += 1
        try:
            yield
        finally:
            self._free.release()
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing runs; tell whether that came true."""
        with self._idle:
            return self._idle.wait_for(lambda: self._running == 0, timeout_s)
