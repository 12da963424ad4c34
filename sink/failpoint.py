"""Name of a failpoint -> nothing; in a fault test, the action that the test has assigned to it.

Edge: the file system, for tests only. `reach` does nothing unless OUTHAUL_FAILPOINTS names a folder when the process
starts. A fault test creates a file in this folder, before or while the process runs. The file has the name of the
failpoint and contains an action. The first process that reaches the failpoint renames the file and carries out the
action. So each file acts once, even if several processes reach the failpoint.

    kill       SIGKILL to the process itself
    stop       SIGSTOP, until the test sends SIGCONT
    hold:2.5   sleep for 2.5 seconds
    raise      a transient error
    bug        an exception that no part of the pipeline expects

`kill@3` does nothing the first two times and acts the third time. `<failpoint>.fired` contains the id of the process
that acted.

This file reads its environment variable itself, and sink/settings does not know it: no setting of the product injects
faults.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from outhaul.sink.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Callable

_FOLDER = os.environ.get("OUTHAUL_FAILPOINTS", "")


def _off(_name: str) -> None:
    """Do nothing."""


def _on(name: str) -> None:
    """Carry out the action of this failpoint, if it has one.

    Raises:
        TransientError: the action is `raise`.
        RuntimeError: the action is `bug`.
    """
    assigned = Path(_FOLDER, name)
    # Of all processes and threads that rename the file, one succeeds.
    taken = assigned.with_name(f"{name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        assigned.rename(taken)
    except FileNotFoundError:
        return
    action, _, count = taken.read_text(encoding="utf-8").partition("@")
    if int(count or 1) > 1:
        taken.write_text(f"{action}@{int(count) - 1}", encoding="utf-8")
        taken.rename(assigned)
        return
    taken.write_text(str(os.getpid()), encoding="utf-8")
    taken.rename(assigned.with_name(f"{name}.fired"))
    kind, _, seconds = action.partition(":")
    match kind:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "hold":
            time.sleep(float(seconds))
        case "bug":
            raise RuntimeError(f"nobody foresaw {name}\nand this second line")
        case _:
            raise TransientError(f"a test has assigned {action!r} to the failpoint {name!r}")


reach: Callable[[str], None] = _on if _FOLDER else _off
