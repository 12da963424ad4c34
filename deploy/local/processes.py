"""Command lines -> processes that outlive this one, found again and ended without a pid file.

Edge: /proc, signals, /bin/sh. The command line of each service contains its data directory, so it is found by that. The
command line is read again before each signal, so a process that reuses the pid gets no signal.
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence

_LOOK_S = 0.02

# States in /proc/PID/stat: no such process, zombie, dead.
_GONE = {"", "Z", "X", "x"}

# The shell exits at once, so the service is not a child of this process: it outlives this process and does not become
# its zombie. The service writes to the shell's standard error, which is the log. Only the pid goes to the pipe.
_DETACH = '"$@" >&2 </dev/null & echo $!'


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a program."""

    argv: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str]
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """A process with its command line, as in /proc."""

    pid: int
    argv: tuple[str, ...]


def start(launch: Launch, log: Path) -> int:
    """Start a program in a session of its own, append its output to a file, and return its pid."""
    # Opened here, since the shell's user may be unable to open the file.
    with log.open("ab") as errors:
        done = subprocess.run(
            ["/bin/sh", "-c", _DETACH, "sh", *launch.argv],
            cwd=launch.cwd,
            env=dict(launch.environment),
            stdout=subprocess.PIPE,
            stderr=errors,
            check=True,
            start_new_session=True,
            user=launch.uid,
            group=launch.gid,
            extra_groups=None if launch.uid is None else [],
            umask=0o077,
        )
    return int(done.stdout)


def find(matches: Callable[[tuple[str, ...]], bool]) -> list[Process]:
    """Return the processes whose command lines match; a zombie has no command line, so it is not found."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [Process(pid, argv) for pid in pids if (argv := _argv(pid)) and matches(argv)]


def alive(process: Process) -> bool:
    """Return whether the process still runs, with the same command line.

    A process that is exiting has no command line but may still hold its files and ports, so it counts as alive.
    """
    argv = _argv(process.pid)
    return argv == process.argv or (not argv and _state(process.pid) not in _GONE)


def send(process: Process, number: signal.Signals) -> None:
    """Send a signal to a process, if it still has the same command line."""
    if _argv(process.pid) == process.argv:
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return


def wait_gone(processes: Sequence[Process], timeout_s: float) -> list[Process]:
    """Wait until these processes have ended; return those that still run after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while left := [process for process in processes if alive(process)]:
        if time.monotonic() >= deadline:
            return left
        time.sleep(_LOOK_S)
    return []


def _state(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The state follows the program's name in parentheses. The name itself may contain parentheses.
    return text.rpartition(")")[2].split()[0]


def _argv(pid: int) -> tuple[str, ...]:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(os.fsdecode(part) for part in raw.rstrip(b"\0").split(b"\0")) if raw else ()
