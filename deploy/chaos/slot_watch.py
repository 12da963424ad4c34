"""Samples of the slot and of event_log, several times a second -> slot overruns and the longest stall.

Edge: queries Postgres for the slot's position, then ClickHouse for the number of rows before that position. ClickHouse
never loses rows. So a row that is missing in its answer was missing when the slot passed it. The run compares each
number with the final one.
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
from outhaul.sink.quoting import clickhouse_identifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.sink.settings import Settings

_EVERY_S = 0.2
_TIMEOUT_S = 5.0

_SLOT = "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"


@dataclass(frozen=True, slots=True)
class Stall:
    """The longest time in which events waited but none was stored, and the fault at its beginning."""

    seconds: float
    during: str


class Watch:
    """Samples in a thread of its own, from `start` to `stop`."""

    def __init__(self, dsn: str, settings: Settings, fault: Callable[[], str]) -> None:
        """Create the thread; `start` starts it. `fault` returns the name of the current fault."""
        self._dsn = dsn
        self._clickhouse = ClickHouse.of(settings, timeout_s=_TIMEOUT_S)
        self._settings = settings
        self._fault = fault
        self._stopped = threading.Event()
        self._passed: dict[int, int] = {}
        self._stored = 0
        self._moved_at = time.monotonic()
        self._fault_at_move = "start"
        self.samples = 0
        self.stall = Stall(0.0, "")
        self._thread = threading.Thread(target=self._run, name="chaos-watch", daemon=True)

    def start(self) -> None:
        """Start to sample."""
        self._thread.start()

    def stop(self) -> None:
        """Stop to sample."""
        self._stopped.set()
        self._thread.join()
        self._clickhouse.close()

    def overruns(self, clickhouse: ClickHouse) -> int:
        """Return at how many positions the slot had passed an event that was not stored.

        Call this when every event is stored.
        """
        count, table = 0, clickhouse_identifier(self._settings.clickhouse_table)
        for lsn, seen in self._passed.items():
            query = f"SELECT count() FROM {table} WHERE cdc_lsn < {lsn}"  # noqa: S608
            count += clickhouse.rows(query)[0][0] != seen
        return count

    def _run(self) -> None:
        while not self._stopped.wait(_EVERY_S):
            # A fault may have stopped either server. Such a sample is skipped.
            with contextlib.suppress(psycopg.Error, PipelineError):
                self._sample()

    def _sample(self) -> None:
        with psycopg.connect(self._dsn, connect_timeout=2, autocommit=True) as conn:
            row = conn.execute(_SLOT, [self._settings.slot]).fetchone()
        if row is None:
            return
        lsn = int(row[0])
        table = clickhouse_identifier(self._settings.clickhouse_table)
        before, stored = self._clickhouse.rows(f"SELECT countIf(cdc_lsn < {lsn}), count() FROM {table}")[0]  # noqa: S608
        # The slot may stay at one position for many samples. The smallest number is the earliest one.
        self._passed[lsn] = min(before, self._passed.get(lsn, before))
        self.samples += 1
        now = time.monotonic()
        if stored > self._stored:
            if now - self._moved_at > self.stall.seconds:
                self.stall = Stall(round(now - self._moved_at, 1), self._fault_at_move)
            self._stored, self._moved_at, self._fault_at_move = stored, now, self._fault()
