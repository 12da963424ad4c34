"""A series of a reader's counters -> events per second, now and before; a series of a slot's figures -> its growth.

Pure, with state from one sample to the next. Counters begin at 0 with each reader process, so a rate never spans two.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from outhaul.cdc_reader.slots import retained_wal

if TYPE_CHECKING:
    from outhaul.cdc_reader.session.reader_state import ReaderState
    from outhaul.cdc_reader.slots.retained_wal import Slot

# The reader reports its counters once a second; over fewer seconds a rate would jump.
_WINDOW_S = 4.0
_KEPT_SAMPLES = 600


@dataclass(frozen=True, slots=True)
class Rate:
    """Events per second; None until there are two samples of one reader."""

    captured: float | None = None
    stored: float | None = None


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    life: tuple[int, str, int]
    captured: int
    stored: int


class Rates:
    """Events captured and stored per second; `history` has the rate at each sample, the newest last."""

    def __init__(self) -> None:
        """Begin without samples."""
        self.history: deque[Rate] = deque(maxlen=_KEPT_SAMPLES)
        self._samples: deque[_Sample] = deque()

    @property
    def now(self) -> Rate:
        """The newest rate."""
        return self.history[-1] if self.history else Rate()

    def add(self, at: float, reader: ReaderState | None) -> None:
        """Add a sample at a time in seconds; `reader` is None if no reader reports."""
        if reader is None:
            self._samples.clear()
            self.history.append(Rate())
            return
        sample = _Sample(at, (reader.pid, reader.host, reader.epoch), reader.events_captured, reader.events_stored)
        last = self._samples[-1] if self._samples else sample
        if last.life != sample.life or sample.captured < last.captured or sample.stored < last.stored:
            self._samples.clear()
        self._samples.append(sample)
        while len(self._samples) > 1 and self._samples[1].at <= at - _WINDOW_S:
            self._samples.popleft()
        first = self._samples[0]
        seconds = at - first.at
        if seconds <= 0:
            self.history.append(Rate())
            return
        self.history.append(
            Rate((sample.captured - first.captured) / seconds, (sample.stored - first.stored) / seconds)
        )


class Growth:
    """How fast the WAL that a slot keeps grows."""

    def __init__(self) -> None:
        """Begin without samples."""
        self._samples: deque[Slot] = deque()

    def add(self, slot: Slot | None) -> Slot | None:
        """Return the slot with its growth over the last seconds."""
        if slot is None:
            self._samples.clear()
            return None
        self._samples.append(slot)
        while len(self._samples) > 1 and self._samples[1].looked_at <= slot.looked_at - _WINDOW_S:
            self._samples.popleft()
        found = retained_wal.compare(self._samples[0], slot)
        # Growth over less than the window may be a single batch, so no time until the limit is computed from it.
        is_short = slot.looked_at - self._samples[0].looked_at < _WINDOW_S
        return replace(found, time_to_trouble_s=None) if is_short else found
