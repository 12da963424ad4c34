"""Rows captured, batches stored, troubles -> metrics, and the state that `outhaul status` shows.

Edge: counts in prometheus-client's registry and reads the clock for the age of the oldest row.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.session.state import ReaderState

if TYPE_CHECKING:
    from collections.abc import Collection

    from outhaul.cdc_reader.session.ledger import Entry, Ledger
    from outhaul.cdc_reader.session.pause import Pause
    from outhaul.cdc_reader.session.watermark import Watermark
    from outhaul.sink.batch import Message
    from outhaul.sink.position import Lsn


class Progress:
    """What a session has done, and what troubles it; `trouble` has one line for each stage that waits."""

    def __init__(self, dead_letters_tables: Collection[str]) -> None:
        """Start at nothing."""
        self.trouble: dict[str, str] = {}
        self._dead_letters_tables = dead_letters_tables
        self._captured = self._stored = self._left_out = self._dead_letters = 0
        self._last_stored_at: float | None = None

    def captured(self, rows: int, left_out: int, size: int) -> None:
        """Count the rows of a piece of `size` bytes; ClickHouse holds `left_out` of them, which go no further."""
        self._captured += rows
        self._left_out += left_out
        metrics.CAPTURED.inc(rows)
        metrics.CAPTURED_BYTES.inc(size)
        metrics.LEFT_OUT.inc(left_out)

    def packed(self, message: Message) -> None:
        """Note how large a batch became."""
        metrics.BATCH_EVENTS.observe(message.rows)
        metrics.BATCH_BYTES.observe(message.size_bytes)

    def stored(self, entry: Entry, dead_letters: int, now_us: int, now: float) -> None:
        """Count a stored batch at Unix time `now_us`, clock `now`; the sink set `dead_letters` of its rows aside."""
        if entry.message.table in self._dead_letters_tables:
            dead_letters = entry.message.rows
        self._stored += entry.message.rows
        self._dead_letters += dead_letters
        self._last_stored_at = now_us / 1e6
        self.trouble.pop("sink", None)
        metrics.COMMIT_TO_STORED.latencies.observe(entry.assembled.committed_at_us, now_us)
        metrics.STORED.inc(entry.message.rows)
        metrics.STORED_BYTES.inc(entry.message.size_bytes)
        metrics.BATCHES.inc()
        metrics.BATCH_SECONDS.observe(now - entry.packed_at)
        metrics.DEAD_LETTERED.inc(dead_letters)

    def state(
        self,
        phase: str,
        epoch: int,
        received: Lsn,
        watermark: Watermark,
        ledger: Ledger,
        pause: Pause | None,
        now: float,
    ) -> ReaderState:
        """Return the snapshot to publish, and set the gauges by the way; `now` is the clock of the ledger."""
        oldest_us = ledger.oldest_commit_us()
        lag_s = max(0.0, time.time() - oldest_us / 1e6) if oldest_us is not None else 0.0
        metrics.IN_FLIGHT.set(watermark.in_flight)
        metrics.EVENTS_IN_FLIGHT.set(ledger.rows)
        metrics.BYTES_IN_FLIGHT.set(ledger.size)
        metrics.OLDEST_BATCH.set(ledger.oldest_s(now))
        metrics.EPOCH.set(epoch)
        metrics.LAG_SECONDS.set(lag_s)
        metrics.PAUSED.set(pause is not None)
        metrics.LAG_BYTES.set(max(0, received - watermark.confirmed))
        p50_s, p99_s = (metrics.COMMIT_TO_STORED.latencies.quantile(q) for q in (0.5, 0.99))
        return ReaderState(
            pid=os.getpid(),
            host=socket.gethostname(),
            phase=phase,
            epoch=epoch,
            received_lsn=str(received),
            confirmed_lsn=str(watermark.confirmed),
            in_flight_batches=watermark.in_flight,
            in_flight_rows=ledger.rows,
            in_flight_bytes=ledger.size,
            events_captured=self._captured,
            events_stored=self._stored,
            events_left_out=self._left_out,
            dead_letters=self._dead_letters,
            lag_s=round(lag_s, 3),
            p50_ms=None if p50_s is None else round(p50_s * 1000, 1),
            p99_ms=None if p99_s is None else round(p99_s * 1000, 1),
            last_stored_at=self._last_stored_at,
            trouble="; ".join(self.trouble.values()),
            pause=pause,
        )
