"""An iterator of work -> the results that several threads make of it, as soon as they are ready.

Edge: threads. At most as many results wait as there are threads. An exception in a thread is raised in the caller.

Source: https://docs.python.org/3/library/queue.html
"""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Work = TypeVar("Work")
Result = TypeVar("Result")

_PUT_S = 0.2


class _Over(Exception):  # noqa: N818 - a signal inside this file
    """The caller needs no more results."""


class _Pool(Generic[Work, Result]):
    """Threads that share an iterator of work and a queue of results; a thread puts None into the queue when it ends."""

    def __init__(self, work: Iterable[Work], make: Callable[[Work], Iterator[Result]], threads: int) -> None:
        self.results: queue.Queue[Result | BaseException | None] = queue.Queue(maxsize=threads)
        self._work = iter(work)
        self._make = make
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"outhaul-copy-{n}", daemon=True) for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Let each thread end after its present piece of work."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        try:
            while (piece := self._next()) is not None:
                for result in self._make(piece):
                    self._put(result)
            self._put(None)
        except _Over:
            pass
        except BaseException as error:  # noqa: BLE001 - the outermost line of a thread
            with suppress(_Over):
                self._put(error)

    def _next(self) -> Work | None:
        with self._lock:
            return next(self._work, None)

    def _put(self, result: Result | BaseException | None) -> None:
        while not self._over.is_set():
            try:
                self.results.put(result, timeout=_PUT_S)
            except queue.Full:
                continue
            return
        raise _Over


def in_parallel(work: Iterable[Work], make: Callable[[Work], Iterator[Result]], threads: int) -> Iterator[Result]:
    """Yield the results of `make` for each piece of work, in no order.

    Args:
        work: each thread takes the next piece when it is free.
        make: called in a thread for each piece.
        threads: number of threads.

    Raises:
        Exception: the first that `work` or `make` raised; the other threads end after their present piece.
    """
    pool = _Pool(work, make, threads)
    try:
        running = threads
        while running:
            result = pool.results.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                running -= 1
            else:
                yield result
    finally:
        pool.close()
