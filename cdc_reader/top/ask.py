"""A server, asked again and again -> its latest answer, and how old that is.

Edge: a thread. Whoever draws never waits for a server: one that hangs has an old answer, one that fails has an error.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from sink.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Latest(Generic[T_co]):
    """The last answer that came, and when (monotonic seconds); `error` says why the last question failed, if it did."""

    name: str
    value: T_co | None = None
    answered_at: float | None = None
    asked_at: float | None = None
    error: str = ""


class Asker(Generic[T]):
    """Asks one server every few seconds."""

    def __init__(self, name: str, ask: Callable[[], T], every_s: float) -> None:
        """Begin to ask; the thread ends with the process."""
        self._ask = ask
        self._every_s = every_s
        self._latest: Latest[T] = Latest(name)
        threading.Thread(target=self._run, name=f"outhaul-ask-{name}", daemon=True).start()

    def latest(self) -> Latest[T]:
        """Return what is known now."""
        return self._latest

    def _run(self) -> None:
        while True:
            begun_at = time.monotonic()
            before = self._latest
            self._latest = Latest(before.name, before.value, before.answered_at, begun_at, before.error)
            try:
                value = self._ask()
                now = time.monotonic()
                self._latest = Latest(before.name, value, now, now)
            except PipelineError as error:
                self._latest = Latest(before.name, before.value, before.answered_at, time.monotonic(), str(error))
            time.sleep(max(0.05, self._every_s - (time.monotonic() - begun_at)))
