"""Rows captured, batches stored, errors of stages -> metrics, and the reader's state as one JSON line in Redis.

Edge: counts in prometheus-client's registry, and reads the clock for the age of the oldest row. `outhaul status` shows
the line. The reader renews it every second, and it expires after `TTL_S` seconds: without a line, no reader runs.

Source: https://prometheus.github.io/client_python/instrumenting/
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.session.pause import Pause
from outhaul.sink.position import NO_LSN

if TYPE_CHECKING:
    from collections.abc import Collection

    from outhaul.cdc_reader.session.ledger import Entry, Ledger
    from outhaul.cdc_reader.session.watermark import Watermark
    from outhaul.sink.batch import Message
    from outhaul.sink.position import Lsn

TTL_S = 5
STALE_S = 3.0
"""Age at which a published state is not the present one any more, in seconds: it is published every second."""
# The published state is at most this old, in seconds: making it at every turn of the loop would cost too much.
_SNAPSHOT_S = 0.5

# A worker that repeats an insert reports that again sooner than this, in seconds, unless ClickHouse holds it.
_OLD_REPORT_S = 15.0

# Phases of a reader during a session, and all phases.
SESSION_PHASES = ("recovering", "streaming", "waiting", "pausing", "paused", "draining")
PHASES = ("starting", "standing_by", "reconnecting", "parked", *SESSION_PHASES)


def process_name() -> str:
    """Return where this reader runs, for a sentence."""
    return f"the reader on {socket.gethostname()} (process {os.getpid()})"


def phase(*, is_draining: bool, is_recovering: bool, is_paused: bool, is_idle: bool, is_troubled: bool) -> str:
    """Return the phase of a reader that has a session.

    During a pause the phase is `pausing` until all rows that were read before are stored (`is_idle`), then `paused`.
    """
    if is_draining:
        return "draining"
    if is_recovering:
        return "recovering"
    if is_paused:
        return "paused" if is_idle else "pausing"
    return "waiting" if is_troubled else "streaming"


@dataclass(frozen=True, slots=True)
class ReaderState:
    """A snapshot; LSNs as Postgres prints them, times in seconds unless the name has another unit.

    A new field needs a default: commands show it for a reader of an earlier release.
    """

    pid: int
    host: str
    phase: str  # see `phase`
    epoch: int = 0
    received_lsn: str = str(NO_LSN)
    confirmed_lsn: str = str(NO_LSN)
    in_flight_batches: int = 0
    in_flight_rows: int = 0
    in_flight_bytes: int = 0
    events_captured: int = 0
    events_stored: int = 0
    events_left_out: int = 0
    dead_letters: int = 0
    lag_s: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    last_stored_at: float | None = None
    trouble: str = ""
    pause: Pause | None = None

    def to_json(self) -> str:
        """Return the line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """Parse a line, also of another release; return None if it is not a line of a reader.

        Missing fields get their default, and unknown fields are ignored.
        """
        try:
            data = json.loads(text)
            pause = data.get("pause")
            return cls(**_known(cls, data) | {"pause": None if pause is None else Pause(**_known(Pause, pause))})
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def _known(kind: type[ReaderState | Pause], data: dict[str, Any]) -> dict[str, Any]:
    return {field.name: data[field.name] for field in fields(kind) if field.name in data}


def _dated(where: str, text: str, age_s: float) -> str:
    """Return a trouble, with the age of the report if a worker reported it and has said nothing since."""
    return f"{text} (reported {age_s:.0f} s ago)" if where == "sink" and age_s >= _OLD_REPORT_S else text


class Snapshot:
    """The line that is published next: the loop updates it, a thread reads it."""

    def __init__(self) -> None:
        """Start with an empty line."""
        self.text = ""
        self._phase = ""
        self._updated_at = float("-inf")
        self._changed = threading.Event()

    def is_due(self, phase: str, now: float) -> bool:
        """Tell whether the line has another phase, or is old enough for an update, at clock `now` in seconds."""
        return phase != self._phase or now - self._updated_at >= _SNAPSHOT_S

    def is_fresh(self, now: float) -> bool:
        """Tell whether the loop has turned lately: an old line must look old, so it is not published again."""
        return now - self._updated_at < STALE_S

    def update(self, state: ReaderState, now: float) -> None:
        """Replace the line at clock `now`; a new phase ends the wait of the thread that publishes it."""
        self.text, self._updated_at = state.to_json(), now
        if state.phase != self._phase:
            self._phase = state.phase
            self.wake()

    def wait(self, seconds: float) -> None:
        """Wait until the phase changes, or for some seconds."""
        self._changed.wait(seconds)
        self._changed.clear()

    def wake(self) -> None:
        """End the wait."""
        self._changed.set()


class Progress:
    """Counts of a session; `trouble` has the error of each stage that repeats an attempt."""

    def __init__(self, dead_letters_tables: Collection[str]) -> None:
        """Start at 0."""
        self.trouble: dict[str, str] = {}
        # When a worker last reported why a batch is not stored, by the clock of the ledger.
        self.sink_trouble_at = 0.0
        self._dead_letters_tables = dead_letters_tables
        self._captured = self._stored = self._left_out = self._dead_letters = 0
        self._last_stored_at: float | None = None

    def captured(self, rows: int, left_out: int, size: int) -> None:
        """Count the rows of a piece of `size` bytes; `left_out` of them are stored already and are not sent."""
        self._captured += rows
        self._left_out += left_out
        metrics.CAPTURED.inc(rows)
        metrics.CAPTURED_BYTES.inc(size)
        metrics.LEFT_OUT.inc(left_out)

    def packed(self, message: Message) -> None:
        """Record the size of a packed batch."""
        metrics.BATCH_EVENTS.observe(message.rows)
        metrics.BATCH_BYTES.observe(message.size_bytes)

    def stored(self, entry: Entry, dead_letters: int, now_us: int, now: float) -> None:
        """Count a stored batch at Unix time `now_us`, clock `now`; `dead_letters` of its rows became dead letters."""
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
        """Return the snapshot to publish, and set the gauges; `now` is the clock of the ledger."""
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
            trouble="; ".join(_dated(where, text, now - self.sink_trouble_at) for where, text in self.trouble.items()),
            pause=pause,
        )
