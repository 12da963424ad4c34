"""A terminal -> its size, and its keys, one at a time, as they are pressed; left as it was, whatever happens meanwhile.

Edge: termios, and signals, which come as keys do: whoever is told to end by one leaves the terminal in order, too.

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
# Another size is a reason to draw. Ctrl-Z would leave a shell with our screen and without its echo: it does nothing.
_GOES_ON = {signal.SIGWINCH, signal.SIGTSTP}


def fill(console: Console) -> None:
    """Give a console the size that its terminal has now.

    Of itself it believes LINES and COLUMNS of the environment first: where a shell or a library exported them, they are
    of the size at that time, and no change is followed. A terminal that does not know its size leaves it at that.
    """
    columns, lines = os.get_terminal_size(console.file.fileno())
    if columns and lines:
        console.size = ConsoleDimensions(columns, lines)


@contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """Give a function that waits so many seconds for a key, and returns it; nothing where it is time to draw again.

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
            # Nothing to read is the end of the terminal.
            return _QUIT if not pressed or _QUIT in pressed else pressed

        try:
            tty.setcbreak(stdin, termios.TCSANOW)
            yield key
        finally:
            termios.tcsetattr(stdin, termios.TCSANOW, before)


@contextmanager
def _signals() -> Iterator[int]:
    """Give a descriptor from which the numbers of the signals that came are read."""
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
