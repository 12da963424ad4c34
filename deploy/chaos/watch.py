"""Slot and event_log, several times a second -> slot overruns and the longest stall.

Edge: asks Postgres first and ClickHouse afterwards. What is stored only grows, so rows before the slot's position that
are missing in the later answer were missing when the slot passed them; how many there must have been is known in the
end.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.sink.settings import Settings

_EVERY_S = 0.2
_TIMEOUT_S = 5.0

_SLOT = "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"


@dataclass(frozen=True, slots=True)
class Stall:
    """The longest time in which nothing was stored though events waited, and the fault that it began with."""

    seconds: float
    during: str


class Watch:
    """Samples in a thread of its own until `stop`."""

    def __init__(self, dsn: str, clickhouse_url: str, settings: Settings, fault: Callable[[], str]) -> None:
        """Start nothing yet; `fault` names what is being done to the pipeline."""
        self._dsn = dsn
        self._clickhouse = ClickHouse(clickhouse_url, timeout_s=_TIMEOUT_S)
        self._settings = settings
        self._fault = fault
        self._over = threading.Event()
        self._passed: dict[int, int] = {}
        self._stored = 0
        self._moved_at = time.monotonic()
        self._fault_at_move = "start"
        self.samples = 0
        self.stall = Stall(0.0, "")
        self._thread = threading.Thread(target=self._run, name="chaos-watch", daemon=True)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def stop(self) -> None:
        """End the sampling."""
        self._over.set()
        self._thread.join()

    def overruns(self) -> int:
        """Return how often the slot was past an event that was not stored; to be asked when all is."""
        count = 0
        for lsn, seen in self._passed.items():
            query = f"SELECT count() FROM {self._settings.clickhouse_table} WHERE cdc_lsn < {lsn}"  # noqa: S608
            count += self._clickhouse.rows(query)[0][0] != seen
        return count

    def _run(self) -> None:
        while not self._over.wait(_EVERY_S):
            # Either may be down, which is the point of the exercise; such a sample says nothing.
            with contextlib.suppress(psycopg.Error, PipelineError):
                self._sample()

    def _sample(self) -> None:
        with psycopg.connect(self._dsn, connect_timeout=2, autocommit=True) as conn:
            row = conn.execute(_SLOT, [self._settings.slot]).fetchone()
        if row is None:
            return
        lsn = int(row[0])
        table = self._settings.clickhouse_table
        before, stored = self._clickhouse.rows(f"SELECT countIf(cdc_lsn < {lsn}), count() FROM {table}")[0]  # noqa: S608
        # The smallest answer counts: one position may be sampled many times.
        self._passed[lsn] = min(before, self._passed.get(lsn, before))
        self.samples += 1
        now = time.monotonic()
        if stored > self._stored:
            if now - self._moved_at > self.stall.seconds:
                self.stall = Stall(round(now - self._moved_at, 1), self._fault_at_move)
            self._stored, self._moved_at, self._fault_at_move = stored, now, self._fault()
