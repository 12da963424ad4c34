"""Times that servers report -> how far their clocks are apart from each other and from this machine's.

Pure, except that `measured` reads the clock before and after a question.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.cdc_reader.operate.doctor.finding import Finding, fail, fine, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_WARN_S, _FAIL_S = 1.0, 5.0
_EFFECT = "latency figures are wrong by that much, and nothing else: no position depends on a clock"
_FIX = "timedatectl set-ntp true  # on each machine"


@dataclass(frozen=True, slots=True)
class Offset:
    """How far a server's clock is ahead of this machine's, and the largest error of that; in seconds."""

    ahead_s: float
    unsure_s: float


def measured(ask: Callable[[], float], now: Callable[[], float] = time.time) -> Offset:
    """Ask a server for its time in Unix seconds, and compare it with the middle of question and answer."""
    before = now()
    there = ask()
    after = now()
    return Offset(there - (before + after) / 2, (after - before) / 2)


def judge(offsets: Mapping[str, Offset]) -> Finding:
    """Judge the clocks of the servers that answered, and of this machine."""
    check = "clocks"
    if not offsets:
        return warn(check, "not compared, because no server answers")
    found = ", ".join(f"{name} {one.ahead_s * 1000:+.0f} ms" for name, one in offsets.items())
    here = Offset(0.0, 0.0)
    apart_s = max(_apart_s(one, other) for one in [*offsets.values(), here] for other in [*offsets.values(), here])
    if apart_s >= _FAIL_S:
        return fail(check, f"{found}: {_EFFECT}", _FIX)
    if apart_s >= _WARN_S:
        return warn(check, f"{found}: {_EFFECT}", _FIX)
    return fine(check, f"{found}, measured from here")


def _apart_s(one: Offset, other: Offset) -> float:
    """Return how far two clocks are apart at least."""
    return one.ahead_s - other.ahead_s - one.unsure_s - other.unsure_s
