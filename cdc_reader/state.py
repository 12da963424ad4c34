"""What the reader is doing -> one JSON line under a key in Redis, for `outhaul status` and whoever asks.

Pure. The line is renewed every second and expires after a few; no line means no reader.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Self

TTL_S = 5


@dataclass(frozen=True, slots=True)
class ReaderState:
    """A snapshot; LSNs as Postgres prints them, times in seconds unless the name says otherwise."""

    pid: int
    host: str
    phase: str  # recovering | streaming | waiting | draining
    epoch: int
    received_lsn: str
    confirmed_lsn: str
    in_flight_batches: int
    in_flight_rows: int
    in_flight_bytes: int
    events_captured: int
    events_stored: int
    events_left_out: int
    dead_letters: int
    lag_s: float
    p50_ms: float | None
    p99_ms: float | None
    last_stored_at: float | None
    trouble: str

    def to_json(self) -> str:
        """Return the line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """Read a line; None when another version wrote it."""
        try:
            data = json.loads(text)
            return cls(**{field.name: data[field.name] for field in fields(cls)})
        except (ValueError, KeyError, TypeError):
            return None
