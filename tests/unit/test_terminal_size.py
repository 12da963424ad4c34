"""The size of a screen is that of its terminal, whatever the environment says."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from outhaul.cdc_reader.operate.top.terminal import fill

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest


@contextmanager
def console_of(lines: int, columns: int) -> Iterator[tuple[Console, int]]:
    """Give a console in a terminal of a size, and the terminal's descriptor."""
    ours, theirs = pty.openpty()
    try:
        with os.fdopen(theirs, "w") as file:
            resize(theirs, lines, columns)
            yield Console(file=file), theirs
    finally:
        os.close(ours)


def resize(terminal: int, lines: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def test_each_size_of_the_terminal_is_followed_where_the_environment_says_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("COLUMNS", "80")
    with console_of(50, 200) as (console, terminal):
        fill(console)
        assert console.size == (200, 50)
        resize(terminal, 12, 120)
        fill(console)
        assert console.size == (120, 12)
        assert console.options.size == (120, 12)


def test_a_terminal_without_a_size_has_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "30")
    monkeypatch.setenv("COLUMNS", "100")
    with console_of(0, 0) as (console, _):
        fill(console)
        assert console.size == (100, 30)
