"""Processes that still use a stack -> ended before its servers, so that they can finish their work.

Edge: a file in the data directory, /proc, signals. The file has each pid with its command line, since pids are reused.
"""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

from outhaul.deploy.local.processes import Process, find, send, wait_gone

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_FILE = "kept.json"
# A reader or worker drains for at most 45 s; it needs its servers meanwhile.
_DRAIN_S, _KILL_S = 45.0, 5.0


def note(data_dir: Path, pids: Iterable[int]) -> None:
    """Record processes, so that `end` can end them later."""
    running = {process.pid: process.argv for process in find(lambda _argv: True)}
    kept = [[pid, running[pid]] for pid in pids if pid in running]
    (data_dir / _FILE).write_text(json.dumps(kept), encoding="utf-8")


def end(data_dir: Path) -> None:
    """End the recorded processes that still run: by SIGTERM, and by SIGKILL if that is not enough."""
    path = data_dir / _FILE
    if not path.exists():
        return
    left = [Process(pid, tuple(argv)) for pid, argv in json.loads(path.read_text(encoding="utf-8"))]
    for number, wait_s in ((signal.SIGTERM, _DRAIN_S), (signal.SIGKILL, _KILL_S)):
        for process in left:
            send(process, number)
        left = wait_gone(left, wait_s)
    path.unlink()
