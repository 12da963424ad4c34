"""Threads with a query each -> a fixed number of queries that run at a time.

Edge: makes threads wait. A query that gets no slot in time raises ClickHouse's error for this.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from outhaul.deploy.local.clickhouse_http.sql_statement import StatementError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Slots:
    """A number of slots. Each running query holds one; other queries wait up to `wait_s` seconds."""

    def __init__(self, count: int, wait_s: float) -> None:
        self._free = threading.Semaphore(count)
        self._count = count
        self._wait_s = wait_s
        self._idle = threading.Condition()
        self._running = 0

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold one slot during the block.

        Raises:
            StatementError: no slot became free in time.
        """
        if not self._free.acquire(timeout=self._wait_s):
            raise StatementError(
                202, "TOO_MANY_SIMULTANEOUS_QUERIES", f"Too many simultaneous queries. Maximum: {self._count}"
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
        """Wait until no query runs; return False if some still run after `timeout_s` seconds."""
        with self._idle:
            return self._idle.wait_for(lambda: self._running == 0, timeout_s)
