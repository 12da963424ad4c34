"""Processes -> processor seconds and peak memory, by what they are.

Edge: reads /proc. What a process has used that ended between two looks is counted by the parent that waited for it.

Source: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
# From the state on, that is without pid and name: parent, and the four times.
_PARENT, _TIMES = 1, slice(11, 15)


@dataclass(frozen=True, slots=True)
class Look:
    """Processor seconds since its start of each root process with all of its descendants; peak MB of the largest."""

    cpu_s: dict[str, float] = field(default_factory=dict)
    peak_rss_mb: dict[str, float] = field(default_factory=dict)
    switches: dict[str, int] = field(default_factory=dict)

    def since(self, before: Look) -> dict[str, float]:
        """Return the processor seconds spent since an earlier look."""
        return {name: round(cpu_s - before.cpu_s.get(name, 0.0), 3) for name, cpu_s in self.cpu_s.items()}


def look(roots: dict[str, int]) -> Look:
    """Look at processes by their names in the report and the pid of each one's root."""
    seen = Look()
    stats = _stats()
    for name, root in roots.items():
        family = _family(root, stats)
        seen.cpu_s[name] = sum(sum(int(ticks) for ticks in stats[pid][_TIMES]) for pid in family) * _TICK_S
        seen.peak_rss_mb[name] = max((_status(pid, "VmHWM") / 1000 for pid in family), default=0.0)
        seen.switches[name] = sum(_switches(pid) for pid in family)
    return seen


def reset_peak(pid: int) -> None:
    """Reset the peak memory of a process."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _stats() -> dict[int, list[str]]:
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            found[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
    return found


def _family(root: int, stats: dict[int, list[str]]) -> list[int]:
    family = [root] if root in stats else []
    for pid in family:
        family += [child for child, stat in stats.items() if int(stat[_PARENT]) == pid]
    return family


def _status(pid: int, name: str) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return 0


def _switches(pid: int) -> int:
    """Count the times that any thread of a process was woken up."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/status"):
        with suppress(OSError):
            line = next((line for line in path.read_text().splitlines() if line.startswith("voluntary_ctxt")), "0 0")
            total += int(line.split()[1])
    return total
