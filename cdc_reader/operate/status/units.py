"""Figures of a pipeline -> the text that `outhaul status` and `outhaul top` show. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from outhaul.cdc_reader.slots.retained_wal import duration, size

if TYPE_CHECKING:
    from outhaul.cdc_reader.session.pause import Pause
    from outhaul.cdc_reader.slots.retained_wal import Slot


def kept(slot: Slot) -> str:
    """Return how much WAL a slot keeps, how fast that grows, and how much is left until the limit."""
    text = size(slot.retained_bytes)
    if slot.growth_bytes_s is not None:
        text += f", growing {size(slot.growth_bytes_s)} a second" if slot.growth_bytes_s > 0 else ", not growing"
    if slot.max_slot_wal_keep_size is None:
        return f"{text}; no limit (max_slot_wal_keep_size = -1)"
    text += f"; {size(slot.safe_wal_size)} left of max_slot_wal_keep_size = {size(slot.max_slot_wal_keep_size)}"
    return text if slot.time_to_trouble_s is None else f"{text}, for {duration(slot.time_to_trouble_s)} at this rate"


def paused(pause: Pause) -> str:
    """Return since when the pipeline is paused, by whom, until when and why."""
    ends = f"until {utc(pause.until)}" if pause.until else "until `outhaul resume`"
    return f"since {utc(pause.since)} by {pause.by}, {ends}" + (f": {pause.reason}" if pause.reason else "")


def utc(unix_s: float) -> str:
    """Return a time in UTC, to the second."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds")


def milliseconds(value: float | None) -> str:
    """Return a number of milliseconds, or a dash if it is None."""
    return "-" if value is None else f"{value:.0f} ms"
