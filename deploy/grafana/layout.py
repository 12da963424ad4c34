"""Groups of panels with headings -> panels with positions and numbers, from the top left.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outhaul.deploy.grafana.panel import Json

SCREEN_W = 24


@dataclass(frozen=True, slots=True)
class Group:
    """A row's heading and the panels below it, in reading order."""

    heading: str
    panels: tuple[Json, ...]


def place(groups: Iterable[Group]) -> list[Json]:
    """Return all panels in one list, each group below its heading; numbers count from 1 and are stable."""
    placed: list[Json] = []
    top = 0
    for group in groups:
        placed.append(_heading(group.heading, top))
        filled = [0] * SCREEN_W
        for panel in group.panels:
            grid = _fit(filled, panel["gridPos"]["w"], panel["gridPos"]["h"])
            placed.append(panel | {"gridPos": grid | {"y": grid["y"] + top + 1}})
        top += 1 + max(filled)
    return [{"id": number, **panel} for number, panel in enumerate(placed, start=1)]


def _fit(filled: list[int], w: int, h: int) -> dict[str, int]:
    """Return the highest free position, the leftmost if several, and mark it; `filled` is the height of each column."""
    y, x = min((max(filled[x : x + w]), x) for x in range(SCREEN_W - w + 1))
    filled[x : x + w] = [y + h] * w
    return {"x": x, "y": y, "w": w, "h": h}


def _heading(title: str, top: int) -> Json:
    grid = {"x": 0, "y": top, "w": SCREEN_W, "h": 1}
    return {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": grid}
