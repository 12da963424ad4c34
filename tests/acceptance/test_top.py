"""`outhaul top` in a real terminal, beside a real pipeline."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from outhaul.sink.redis_keys import ANY_WORKER, pulse_key
from tests.acceptance.commands import outhaul
from tests.conftest import World
from tests.launch import OUTHAUL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import World

_CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
_HOME, _MAIN_SCREEN = "\x1b[H", "\x1b[?1049l"


@dataclass
class Terminal:
    """A terminal of 80 columns, and what runs in it."""

    process: subprocess.Popen[bytes]
    fd: int
    theirs: int
    said: str = ""

    def screen(self) -> str:
        """Return what was drawn last."""
        return _CODES.sub("", self.said.rpartition(_HOME)[2])

    def shows(self, condition: Callable[[str], object], within_s: float = 90.0) -> str:
        """Wait until a screen is such a one."""
        deadline = time.monotonic() + within_s
        while not condition(self.screen()):
            assert time.monotonic() < deadline, self.screen()
            self._hear()
        return self.screen()

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def press(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def ends(self) -> int:
        """Wait for the end; return the exit code."""
        deadline = time.monotonic() + 10
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.screen()
            self._hear()
        self._hear()
        return self.process.returncode

    def _hear(self) -> None:
        if select.select([self.fd], [], [], 0.2)[0]:
            try:
                self.said += os.read(self.fd, 1 << 16).decode("utf-8", "replace")
            except OSError:  # what ran in it has ended
                return


@contextmanager
def top(world: World, every_s: float = 0.3) -> Iterator[Terminal]:
    """Run it in a terminal that stays when it ends; its environment says another size than the terminal has."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(theirs)
    env = {**os.environ, **world.env, "TERM": "xterm-256color", "COLUMNS": "150", "LINES": "30"}
    process = subprocess.Popen(
        [OUTHAUL, "top", "--every", str(every_s)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env,
        start_new_session=True,
    )
    try:
        yield Terminal(process, ours, theirs)
        assert termios.tcgetattr(theirs) == before, "the terminal is not as it was"
    finally:
        process.kill()
        process.wait(10)
        os.close(ours)
        os.close(theirs)


def rate(screen: str) -> int:
    found = re.search(r"^stored +([\d,]+)/s", screen, re.MULTILINE)
    return int(found[1].replace(",", "")) if found else 0


def test_it_shows_rates_then_what_is_wrong_and_that_it_is_over(running: World) -> None:
    with top(running) as terminal:
        terminal.shows(lambda screen: "streaming" in screen and "fine" in screen)

        def flows(screen: str) -> bool:
            running.insert(50)
            return rate(screen) > 0

        screen = terminal.shows(flows)
        assert max(map(len, screen.splitlines())) <= 80
        assert len(screen.splitlines()) <= 24
        running.pipeline.kill("worker")
        # Its last sign of life holds for ten seconds.
        running.payloads.drop([pulse_key(running.settings.source, ANY_WORKER)])
        running.insert(5)
        terminal.shows(lambda screen: "no worker takes them" in screen and "1 wrong" in screen)
        running.pipeline.start("worker")
        terminal.shows(
            lambda screen: (
                "fine" in screen and re.search(r"^before +\S+ to \S+  \d messages wait", screen, re.MULTILINE)
            )
        )
        terminal.press(b"q")
        assert terminal.ends() == 0
        assert _MAIN_SCREEN in terminal.said
    running.assert_once_each()


@pytest.mark.thorough
def test_a_server_that_hangs_has_old_figures_and_q_still_quits(running: World) -> None:
    pid = running.sql("SELECT pg_backend_pid()")
    with top(running) as terminal:
        terminal.shows(lambda screen: "active, reserved" in screen)
        backend = running.sql(
            "SELECT pid FROM pg_stat_activity WHERE query ~ 'max_slot_wal_keep_size' AND pid != %s", pid
        )
        os.kill(backend, signal.SIGSTOP)
        try:
            screen = terminal.shows(lambda screen: "Postgres does not answer" in screen and " old)" in screen)
            assert "active, reserved" in screen
            terminal.press(b"q")
            assert terminal.ends() == 0
        finally:
            os.kill(backend, signal.SIGCONT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_a_signal_ends_it_as_q_does(world: World, number: signal.Signals) -> None:
    with top(world) as terminal:
        terminal.shows(lambda screen: "no reader runs" in " ".join(screen.split()))
        # Ctrl-Z, which would leave the shell with this screen.
        terminal.process.send_signal(signal.SIGTSTP)
        terminal.process.send_signal(number)
        assert terminal.ends() == 0
        assert _MAIN_SCREEN in terminal.said


def width(screen: str) -> int:
    return max(map(len, screen.splitlines()), default=0)


def test_another_size_is_drawn_at_once(world: World) -> None:
    """Each pause between two screens is twice as long as the one before, up to a minute: without it, ten take long."""
    with top(world, every_s=60) as terminal:
        terminal.shows(lambda screen: "no reader runs" in " ".join(screen.split()))
        for columns in range(90, 140, 5):
            terminal.resize(12, columns)
            screen = terminal.shows(lambda screen, columns=columns: columns - 5 < width(screen) <= columns)  # type: ignore[misc]
            assert len(screen.splitlines()) <= 12
        terminal.press(b"q")
        assert terminal.ends() == 0


def test_without_a_terminal_it_says_what_to_use(world: World) -> None:
    said = outhaul(world, "top", code=2)
    assert "status --watch" in said


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("options", "mark"),
    [((), "noticed"), pytest.param(("--json",), "{", marks=pytest.mark.thorough)],
    ids=["screen", "json"],
)
def test_status_watch_prints_one_snapshot_after_the_other_where_there_is_no_terminal(
    world: World, options: tuple[str, ...], mark: str
) -> None:
    with subprocess.Popen(
        [OUTHAUL, "status", "--watch", *options], env={**os.environ, **world.env}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        snapshots = (line for line in process.stdout if line.startswith(mark))
        try:
            assert len(list(itertools.islice(snapshots, 2))) == 2
        finally:
            process.send_signal(signal.SIGINT)
