"""What the reader is doing -> one JSON line under a key in Redis, for `outhaul status` and whoever asks.

Pure. The line is renewed every second and expires after a few; no line means no reader.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from outhaul.cdc_reader.session.pause import Pause
from outhaul.sink.position import NO_LSN

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
    """A snapshot; LSNs as Postgres prints them, times in seconds unless the name says otherwise.

    A new field needs a default, which a command shows of a reader of the release before.
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
        """Read a line, of another release as well: what it does not say is as at the start; None where it is no line.

        Fields that only a newer release knows are passed over.
        """
        try:
            data = json.loads(text)
            pause = data.get("pause")
            return cls(**_known(cls, data) | {"pause": None if pause is None else Pause(**_known(Pause, pause))})
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def _known(kind: type[ReaderState | Pause], data: dict[str, Any]) -> dict[str, Any]:
    return {field.name: data[field.name] for field in fields(kind) if field.name in data}
