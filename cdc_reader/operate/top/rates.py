"""A reader's counters, look by look -> events a second now, and for some time back; a slot's looks -> its growth.

Pure, with state from look to look. Counters begin anew with another reader, so rates are of one life only.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from outhaul.cdc_reader.slots import retained_wal

if TYPE_CHECKING:
    from outhaul.cdc_reader.session.state import ReaderState
    from outhaul.cdc_reader.slots.retained_wal import Slot

# The reader says its counters once a second; over fewer seconds a rate would jump.
_WINDOW_S = 4.0
_KEPT_LOOKS = 600


@dataclass(frozen=True, slots=True)
class Rate:
    """Events a second; None until there are two looks at one reader."""

    captured: float | None = None
    stored: float | None = None


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    life: tuple[int, str, int]
    captured: int
    stored: int


class Rates:
    """What was captured and stored a second; `history` has the rate at each look, the newest last."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self.history: deque[Rate] = deque(maxlen=_KEPT_LOOKS)
        self._looks: deque[_Look] = deque()

    @property
    def now(self) -> Rate:
        """The newest rate."""
        return self.history[-1] if self.history else Rate()

    def add(self, at: float, reader: ReaderState | None) -> None:
        """Take a look at a reader at a time in seconds; None is none that says anything."""
        if reader is None:
            self._looks.clear()
            self.history.append(Rate())
            return
        look = _Look(at, (reader.pid, reader.host, reader.epoch), reader.events_captured, reader.events_stored)
        last = self._looks[-1] if self._looks else look
        if last.life != look.life or look.captured < last.captured or look.stored < last.stored:
            self._looks.clear()
        self._looks.append(look)
        while len(self._looks) > 1 and self._looks[1].at <= at - _WINDOW_S:
            self._looks.popleft()
        first = self._looks[0]
        seconds = at - first.at
        if seconds <= 0:
            self.history.append(Rate())
            return
        self.history.append(Rate((look.captured - first.captured) / seconds, (look.stored - first.stored) / seconds))


class Growth:
    """How fast what a slot keeps grows."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._looks: deque[Slot] = deque()

    def add(self, slot: Slot | None) -> Slot | None:
        """Return the slot with its growth over the last seconds."""
        if slot is None:
            self._looks.clear()
            return None
        self._looks.append(slot)
        while len(self._looks) > 1 and self._looks[1].looked_at <= slot.looked_at - _WINDOW_S:
            self._looks.popleft()
        found = retained_wal.compare(self._looks[0], slot)
        # What grows for a moment may be one batch on its way; that is no reason to name an hour.
        is_short = slot.looked_at - self._looks[0].looked_at < _WINDOW_S
        return replace(found, time_to_trouble_s=None) if is_short else found
