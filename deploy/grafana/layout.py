"""Groups of panels with headings -> panels with positions and numbers, from the top left.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grafana_foundation_sdk.models.dashboard import GridPos, RowPanel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grafana_foundation_sdk.models.dashboard import Panel

SCREEN_W = 24


@dataclass(frozen=True, slots=True)
class Group:
    """A row's heading and the panels below it, in reading order."""

    heading: str
    panels: tuple[Panel, ...]


def place(groups: Iterable[Group]) -> list[Panel | RowPanel]:
    """Return all panels in one list, each group below its heading; numbers count from 1 and are stable."""
    placed: list[Panel | RowPanel] = []
    top = 0
    for group in groups:
        placed.append(RowPanel(title=group.heading, grid_pos=GridPos(x=0, y=top, w=SCREEN_W, h=1)))
        filled = [0] * SCREEN_W
        for panel in group.panels:
            grid = panel.grid_pos or GridPos()
            _fit(filled, grid)
            grid.y += top + 1
            placed.append(panel)
        top += 1 + max(filled)
    for number, one in enumerate(placed, start=1):
        one.id_val = number
    return placed


def _fit(filled: list[int], grid: GridPos) -> None:
    """Move to the highest free position, the leftmost if several, and mark it; `filled` is each column's height."""
    grid.y, grid.x = min((max(filled[x : x + grid.w]), x) for x in range(SCREEN_W - grid.w + 1))
    filled[grid.x : grid.x + grid.w] = [grid.y + grid.h] * grid.w
