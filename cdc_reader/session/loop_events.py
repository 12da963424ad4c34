"""Stages of a session -> events for its loop: one class for each event, and the queue for them.

Edge: an event descriptor, so that the loop can wait for events and for its socket at the same time.

Source: https://man7.org/linux/man-pages/man2/eventfd.2.html
"""

from __future__ import annotations

import os
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.cdc_reader.session.pause import PauseRequest
from outhaul.sink.report import Report

if TYPE_CHECKING:
    from outhaul.cdc_reader.capture.assemble import Assembled
    from outhaul.cdc_reader.session.ledger import TaskHealth
    from outhaul.cdc_reader.session.recovery import Recovered
    from outhaul.sink.errors import PipelineError
    from outhaul.sink.position import Lsn


@dataclass(frozen=True, slots=True)
class Begun:
    """Recovery is done; batches may follow."""

    recovered: Recovered


@dataclass(frozen=True, slots=True)
class PieceDecoded:
    """A piece was decoded: its rows, how many of them are stored already, its bytes, its last commit (Unix µs)."""

    rows: int
    left_out: int
    size: int
    committed_at_us: int | None


@dataclass(frozen=True, slots=True)
class Packed:
    """A group of pieces is packed: its batches, and the LSN that may be confirmed when they are stored."""

    batches: list[Assembled]
    safe_lsn: Lsn | None


@dataclass(frozen=True, slots=True)
class Sent:
    """The broker has the message of a batch."""

    sequence: int


@dataclass(frozen=True, slots=True)
class TasksChecked:
    """The tasks' signs of life in Redis were checked."""

    health: TaskHealth


@dataclass(frozen=True, slots=True)
class RedisLost:
    """Redis has lost the epoch or was unreachable: its data may be lost."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A stage repeats an attempt because of `error`; None if it has succeeded."""

    where: str
    error: PipelineError | None


@dataclass(frozen=True, slots=True)
class Failed:
    """An error in a stage, which ends the session."""

    error: Exception


Event = Begun | PieceDecoded | Packed | Sent | Report | TasksChecked | RedisLost | PauseRequest | Trouble | Failed


class SessionOverError(Exception):
    """Raised in a stage that waits when the session ends."""


class Events:
    """The events for the loop; `fileno` is readable while the queue has an event."""

    def __init__(self) -> None:
        """Open the event descriptor."""
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.over = threading.Event()

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._wake

    def put(self, event: Event) -> None:
        """Send an event to the loop."""
        self._queue.put(event)
        os.eventfd_write(self._wake, 1)

    def take(self) -> list[Event]:
        """Return all events in the queue."""
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
            SessionOverError: the session ended.
        """
        if self.over.wait(seconds):
            raise SessionOverError

    def close(self) -> None:
        """Close the descriptor; call this after all stages have ended."""
        os.close(self._wake)
