"""Command lines -> processes that outlive us, found again and ended without a pid file.

Edge: /proc, signals, /bin/sh. A process is ours if its command line names our data directory, so there is no stale
pid file, and a reused pid is nobody's: the command line is read again before each signal.
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

# No such process, a zombie, dead.
_GONE = {"", "Z", "X", "x"}

# The shell leaves at once, so the service is nobody's child: it stays when we go, and never becomes our zombie.
# What it starts writes to the shell's standard error, which is the log; only the pid goes to the pipe.
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
    """A process as /proc shows it."""

    pid: int
    argv: tuple[str, ...]


def start(launch: Launch, log: Path) -> int:
    """Start a program in a session of its own, its output appended to a file; return its pid."""
    # Opened here and not by the shell, whose user may not reach the file.
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


def find(is_it: Callable[[tuple[str, ...]], bool]) -> list[Process]:
    """Return the processes whose command lines are such; zombies have none."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [Process(pid, argv) for pid in pids if (argv := _argv(pid)) and is_it(argv)]


def alive(process: Process) -> bool:
    """Tell whether it still runs, and is still the same.

    One that is ending has given up its command line already, but not yet its files and ports.
    """
    argv = _argv(process.pid)
    return argv == process.argv or (not argv and _state(process.pid) not in _GONE)


def send(process: Process, number: signal.Signals) -> None:
    """Signal a process, if it is still the same."""
    if _argv(process.pid) == process.argv:
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return


def wait_gone(processes: Sequence[Process], timeout_s: float) -> list[Process]:
    """Wait until these have ended; return the ones that have not."""
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
    # The name in brackets may hold anything, brackets too.
    return text.rpartition(")")[2].split()[0]


def _argv(pid: int) -> tuple[str, ...]:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(os.fsdecode(part) for part in raw.rstrip(b"\0").split(b"\0")) if raw else ()
