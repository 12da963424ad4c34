"""Figures of a pipeline -> the text that `outhaul status` and `outhaul top` show. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from outhaul.sink.quantities import duration_text, size_text

if TYPE_CHECKING:
    from outhaul.cdc_reader.session.pause import Pause
    from outhaul.cdc_reader.slots.retained_wal import Slot

# A reader reports every second.
_JUST_NOW_S = 1.5


def kept(slot: Slot) -> str:
    """Return how much WAL a slot keeps, how fast that grows, and how much is left until the limit."""
    text = size_text(slot.retained_bytes)
    if slot.growth_bytes_s is not None:
        text += f", growing {size_text(slot.growth_bytes_s)} a second" if slot.growth_bytes_s > 0 else ", not growing"
    if slot.max_slot_wal_keep_size is None:
        return f"{text}; no limit (max_slot_wal_keep_size = -1)"
    left, limit = size_text(slot.safe_wal_size), size_text(slot.max_slot_wal_keep_size)
    text += f"; {left} left of max_slot_wal_keep_size = {limit}"
    if slot.time_to_trouble_s is not None:
        text += f", for {duration_text(slot.time_to_trouble_s)} at this rate"
    return text


def paused(pause: Pause) -> str:
    """Return since when the pipeline is paused, by whom, until when and why."""
    ends = f"until {utc(pause.until)}" if pause.until else "until `outhaul resume`"
    return f"since {utc(pause.since)} by {pause.by}, {ends}" + (f": {pause.reason}" if pause.reason else "")


def phase_then(phase: str, age_s: float | None) -> str:
    """Return the phase of a reader, with its age in seconds if the reader has not reported it just now."""
    return phase if age_s is None or age_s < _JUST_NOW_S else f"{phase} {age_s:.1f} s ago"


def utc(unix_s: float) -> str:
    """Return a time in UTC, to the second."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds")


def milliseconds(value: float | None) -> str:
    """Return a number of milliseconds, or a dash if it is None."""
    return "-" if value is None else f"{value:.0f} ms"
