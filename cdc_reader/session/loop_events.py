"""What the stages tell the loop of a session: one class for each event, and the queue that carries them.

Edge: an event descriptor, so that the loop can wait for events and for its socket at the same time.
"""

from __future__ import annotations

import os
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.cdc_reader.session.pause import Wished
from outhaul.sink.report import Report

if TYPE_CHECKING:
    from outhaul.cdc_reader.capture.assemble import Assembled
    from outhaul.cdc_reader.session.ledger import Health
    from outhaul.cdc_reader.session.recovery import Recovered
    from outhaul.sink.errors import PipelineError
    from outhaul.sink.position import Lsn


@dataclass(frozen=True, slots=True)
class Begun:
    """Recovery is done; batches may follow."""

    recovered: Recovered


@dataclass(frozen=True, slots=True)
class Decoded:
    """A piece was decoded: rows, those that are held, bytes, and when the last was committed (Unix µs, or None)."""

    rows: int
    left_out: int
    size: int
    committed_at_us: int | None


@dataclass(frozen=True, slots=True)
class Packed:
    """All pieces up to the end of a batch: what they became, and what may be confirmed when that is stored."""

    batches: list[Assembled]
    safe_lsn: Lsn | None


@dataclass(frozen=True, slots=True)
class Sent:
    """The broker has a batch."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Looked:
    """Redis was asked for signs of life."""

    health: Health


@dataclass(frozen=True, slots=True)
class RedisLost:
    """Redis has forgotten the epoch, or was away: whatever was in it may be gone."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something is being repeated; None when it works again."""

    where: str
    error: PipelineError | None


@dataclass(frozen=True, slots=True)
class Failed:
    """A stage met an error that ends the session."""

    error: Exception


Event = Begun | Decoded | Packed | Sent | Report | Looked | RedisLost | Wished | Trouble | Failed


class SessionOverError(Exception):
    """Raised inside a stage that is told to stop while it waits."""


class Events:
    """What the stages tell the loop; `fileno` becomes readable when there is something."""

    def __init__(self) -> None:
        """Open the event descriptor."""
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.over = threading.Event()

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._wake

    def put(self, event: Event) -> None:
        """Hand an event to the loop."""
        self._queue.put(event)
        os.eventfd_write(self._wake, 1)

    def take(self) -> list[Event]:
        """Return all events that are waiting."""
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return []
        events = []
        while not self._queue.empty():
            events.append(self._queue.get_nowait())
        return events

    def wait(self, seconds: float) -> None:
        """Sleep in a stage.

        Raises:
            SessionOverError: the session ends.
        """
        if self.over.wait(seconds):
            raise SessionOverError

    def close(self) -> None:
        """Close the descriptor; no stage may be running any more."""
        os.close(self._wake)
