"""When the reader looks at its socket."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from outhaul.cdc_reader.capture.frame import Run
from outhaul.cdc_reader.capture.wire import Wire
from outhaul.cdc_reader.session.loop_events import Events, RedisLost

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator

    from outhaul.cdc_reader.postgres.slot import Link


class SomeWindow:
    """A window that remembers what was done to it."""

    is_narrow = True

    def wake_at(self, _size: int) -> None:
        """Whatever it is, less is there."""

    def narrow(self) -> None:
        self.is_narrow = True

    def widen(self) -> None:
        self.is_narrow = False


class FewBytes:
    """A link with fewer bytes than would wake up a patient reader; counts how often they are asked for."""

    more = unsent = False

    def __init__(self) -> None:
        self.looks = 0
        self.window = SomeWindow()
        self._silent, self._other = os.pipe()

    def fileno(self) -> int:
        return self._silent

    def read(self, _data: bytearray, _lengths: array[int], _max_bytes: int, _max_frames: int) -> None:
        self.looks += 1

    def close(self) -> None:
        os.close(self._silent)
        os.close(self._other)


@contextmanager
def wired() -> Iterator[tuple[Wire, FewBytes, Events]]:
    link, events = FewBytes(), Events()
    try:
        yield Wire(cast("Link", link), status_interval_s=1.0, receive_timeout_s=4.0, now=time.monotonic()), link, events
    finally:
        events.close()
        link.close()


def test_a_patient_reader_whom_events_keep_waking_still_looks() -> None:
    """Postgres' answer to a question is short; unread, it would be taken for silence."""
    with wired() as (wire, link, events):
        for _ in range(20):
            events.put(RedisLost())
            wire.wait(events.fileno(), time.monotonic() + 60, Run(), 1000, 10, gather=True)
            events.take()
        assert link.looks > 0


def test_a_pause_widens_the_window_and_the_next_look_narrows_it() -> None:
    with wired() as (wire, link, events):
        wire.wait(events.fileno(), time.monotonic(), Run(), 0, 0)
        seen = [link.window.is_narrow]
        over = time.monotonic() + 2
        while link.window.is_narrow and time.monotonic() < over:
            wire.wait(events.fileno(), time.monotonic() + 0.1, Run(), 0, 0)
        seen.append(link.window.is_narrow)
        wire.wait(events.fileno(), time.monotonic(), Run(), 1000, 10)
        assert [*seen, link.window.is_narrow] == [True, False, True]
