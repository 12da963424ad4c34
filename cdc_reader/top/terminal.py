"""A terminal -> its keys, one at a time, as they are pressed; left as it was, whatever happens meanwhile.

Edge: termios.

Source: https://docs.python.org/3/library/tty.html
"""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sink.errors import Exit, FatalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """Give a function that waits so many seconds for a key, and returns it, or nothing.

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

    def key(timeout_s: float) -> str:
        readable, _, _ = select.select([stdin], [], [], timeout_s)
        if not readable:
            return ""
        pressed = os.read(stdin, 64)
        # The terminal is gone.
        return pressed.decode("utf-8", "replace") or "q"

    try:
        tty.setcbreak(stdin, termios.TCSANOW)
        yield key
    finally:
        termios.tcsetattr(stdin, termios.TCSANOW, before)
