"""Name of a point on the way -> nothing; under a fault test, whatever the test has laid there.

For tests only. `reach` does nothing unless OUTHAUL_FAILPOINTS names a folder when the process starts. A fault test
then lays a file there, named as the point and holding an action, also while the process runs; the process that reaches
the point first takes the file away and acts. So each file acts once, whichever of several processes gets there.

    kill       SIGKILL to the process itself
    stop       SIGSTOP, until somebody sends SIGCONT
    hold:2.5   sleep for so many seconds
    raise      a transient error

`kill@3` lets two pass and acts on the third. What acted is in `<point>.fired`, as a process id.

Edge: reads its one variable itself, beside sink/settings, so that the product has no setting that can break it.
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
    """Go on."""


def _on(name: str) -> None:
    """Do what is laid at this point.

    Raises:
        TransientError: that is what was laid.
    """
    laid = Path(_FOLDER, name)
    # A rename has one winner among all processes and threads.
    taken = laid.with_name(f"{name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        laid.rename(taken)
    except FileNotFoundError:
        return
    action, _, count = taken.read_text(encoding="utf-8").partition("@")
    if int(count or 1) > 1:
        taken.write_text(f"{action}@{int(count) - 1}", encoding="utf-8")
        taken.rename(laid)
        return
    taken.write_text(str(os.getpid()), encoding="utf-8")
    taken.rename(laid.with_name(f"{name}.fired"))
    kind, _, seconds = action.partition(":")
    match kind:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "hold":
            time.sleep(float(seconds))
        case _:
            raise TransientError(f"a test has laid {action!r} at {name!r}")


reach: Callable[[str], None] = _on if _FOLDER else _off
