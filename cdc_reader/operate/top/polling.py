"""A server that is polled -> its latest answer, and the age of that.

Edge: a thread. Drawing never waits for a server: a server that hangs has an old answer, one that fails has an error.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from outhaul.sink.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable

_SHORTEST_REST_S, _LONGEST_REST_S = 0.05, 30.0

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Latest(Generic[T_co]):
    """The latest answer, and when it came (monotonic seconds); `error` is that of the latest poll, if it failed.

    `asked_at` is the time of the first poll; the next answer is expected `next_within_s` after this one.
    """

    name: str
    value: T_co | None = None
    answered_at: float | None = None
    asked_at: float | None = None
    error: str = ""
    next_within_s: float = 0.0


class ServerPoller(Generic[T]):
    """Polls one server every few seconds."""

    def __init__(self, name: str, ask: Callable[[], T], every_s: float, *, rest: float = 0.0) -> None:
        """Start to poll; the thread ends with the process.

        Args:
            name: of the server, for messages.
            ask: polls once.
            every_s: seconds from one poll to the next.
            rest: shortest pause after a poll, as a multiple of the time that the poll took.
        """
        self._ask = ask
        self._every_s = every_s
        self._rest = rest
        self._latest: Latest[T] = Latest(name, asked_at=time.monotonic(), next_within_s=every_s)
        threading.Thread(target=self._run, name=f"outhaul-ask-{name}", daemon=True).start()

    def latest(self) -> Latest[T]:
        """Return the latest answer."""
        return self._latest

    def _run(self) -> None:
        while True:
            begun_at = time.monotonic()
            before = self._latest
            try:
                value = self._ask()
                now = time.monotonic()
                took_s = now - begun_at
                pause_s = max(self._every_s - took_s, min(took_s * self._rest, _LONGEST_REST_S), _SHORTEST_REST_S)
                self._latest = Latest(before.name, value, now, before.asked_at, next_within_s=pause_s + took_s)
            except PipelineError as error:
                pause_s = self._failed(str(error), begun_at)
            except Exception as error:  # noqa: BLE001 - the outermost line of this thread; the screen shows it
                pause_s = self._failed(f"{before.name}: {type(error).__name__}: {error}", begun_at)
            time.sleep(pause_s)

    def _failed(self, error: str, begun_at: float) -> float:
        self._latest = replace(self._latest, error=error)
        return max(self._every_s - (time.monotonic() - begun_at), _SHORTEST_REST_S)
