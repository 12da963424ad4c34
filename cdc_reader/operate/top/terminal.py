"""A terminal -> its size, and its keys as they are pressed; at the end the terminal has its former settings again.

Edge: termios, and signals. A signal that ends the process is read like the key q, so the terminal is restored then too.

Source: https://docs.python.org/3/library/tty.html
https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import ConsoleDimensions

from outhaul.sink.errors import Exit, FatalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

_QUIT = "q"
_ENDS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}
# A new size causes a redraw. Ctrl-Z is ignored: it would leave the shell with this screen and without echo.
_GOES_ON = {signal.SIGWINCH, signal.SIGTSTP}


def fill(console: Console) -> None:
    """Give a console the size that its terminal has now.

    By default rich reads LINES and COLUMNS from the environment first. If a shell or a library exported them, they have
    the size at that time and do not follow a change. If the terminal does not know its size, the default stays.
    """
    columns, lines = os.get_terminal_size(console.file.fileno())
    if columns and lines:
        console.size = ConsoleDimensions(columns, lines)


@contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits for a key, at most the given seconds, and returns it; "" if it is time to redraw.

    Raises:
        FatalError: there is no terminal.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise FatalError(
            "outhaul top needs a terminal",
            todo="Use `outhaul status --watch`, or `outhaul status --json` for scripts",
            exit_code=Exit.USAGE,
        )
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    with _signals() as signals:

        def key(timeout_s: float) -> str:
            readable, _, _ = select.select([stdin, signals], [], [], timeout_s)
            if signals in readable and _ENDS.intersection(os.read(signals, 64)):
                return _QUIT
            if stdin not in readable:
                return ""
            pressed = os.read(stdin, 64).decode("utf-8", "replace").lower()
            # An empty read: the terminal was closed.
            return _QUIT if not pressed or _QUIT in pressed else pressed

        try:
            tty.setcbreak(stdin, termios.TCSANOW)
            yield key
        finally:
            termios.tcsetattr(stdin, termios.TCSANOW, before)


@contextmanager
def _signals() -> Iterator[int]:
    """Yield a descriptor from which the numbers of received signals are read."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    handlers = {number: signal.signal(number, lambda *_: None) for number in _ENDS | _GOES_ON}
    wakes = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    try:
        yield ours
    finally:
        signal.set_wakeup_fd(wakes)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(ours)
        os.close(theirs)
