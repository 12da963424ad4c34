"""What the reader is doing -> one JSON line under a key in Redis, for `outhaul status` and whoever asks.

Pure. The line is renewed every second and expires after a few; no line means no reader.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Self

from cdc_reader.pausing.gate import Pause

TTL_S = 5

# What a reader does while it has a session, and what else it may do.
SESSION_PHASES = ("recovering", "streaming", "waiting", "pausing", "paused", "draining")
PHASES = ("starting", "standing_by", "reconnecting", "parked", *SESSION_PHASES)


def phase(*, is_draining: bool, is_recovering: bool, is_paused: bool, is_at_rest: bool, is_troubled: bool) -> str:
    """Return the one word for what a reader does.

    A pause is `pausing` until all that was taken before it is stored (`is_at_rest`), then `paused`.
    """
    if is_draining:
        return "draining"
    if is_recovering:
        return "recovering"
    if is_paused:
        return "paused" if is_at_rest else "pausing"
    return "waiting" if is_troubled else "streaming"


@dataclass(frozen=True, slots=True)
class ReaderState:
    """A snapshot; LSNs as Postgres prints them, times in seconds unless the name says otherwise."""

    pid: int
    host: str
    phase: str  # see `phase`
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
    pause: Pause | None

    def to_json(self) -> str:
        """Return the line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """Read a line; None when another version wrote it."""
        try:
            data = json.loads(text)
            pause = data["pause"]
            values = {field.name: data[field.name] for field in fields(cls)}
            return cls(**values | {"pause": None if pause is None else Pause(**pause)})
        except (ValueError, KeyError, TypeError):
            return None
