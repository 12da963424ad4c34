"""When the reader looks at its socket."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, cast

from cdc_reader.frame import Run
from cdc_reader.stages import Events, RedisLost
from cdc_reader.wire import Wire

if TYPE_CHECKING:
    from cdc_reader.slot import Link


class FewBytes:
    """A link with fewer bytes than would wake up a patient reader; counts how often they are asked for."""

    more = unsent = False

    def __init__(self) -> None:
        self.looks = 0
        self._silent, self._other = os.pipe()

    def fileno(self) -> int:
        return self._silent

    def wake_at(self, _size: int) -> None:
        """Whatever it is, less is there."""

    def read(self, _run: Run, _max_bytes: int, _max_frames: int) -> None:
        self.looks += 1

    def close(self) -> None:
        os.close(self._silent)
        os.close(self._other)


def test_a_patient_reader_whom_events_keep_waking_still_looks() -> None:
    """Postgres' answer to a question is short; unread, it would be taken for silence."""
    link, events = FewBytes(), Events()
    wire = Wire(cast("Link", link), status_interval_s=1.0, receive_timeout_s=4.0, now=time.monotonic())
    try:
        for _ in range(20):
            events.put(RedisLost())
            wire.wait(events, time.monotonic() + 60, Run(), 1000, 10, patient=True)
            events.take()
        assert link.looks > 0
    finally:
        events.close()
        link.close()
