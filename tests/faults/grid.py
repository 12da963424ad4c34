"""What a cell of the grid is, the list of them, and the table at the end of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.faults.rig import Rig

EDGES = ("postgres", "redis", "clickhouse", "worker", "reader")


@dataclass(frozen=True)
class Cell:
    """A fault: at which edge, what is done, at which point of the way; `run` does it and lifts it."""

    edge: str
    action: str
    point: str
    run: Callable[[Rig], None]
    core: bool = False

    @property
    def name(self) -> str:
        """For the test's id."""
        return f"{self.edge}-{self.action}-{self.point}".replace(" ", "_")


@dataclass
class Outcome:
    """How a cell went."""

    edge: str
    action: str
    point: str
    outcome: str
    seconds: float
    note: str = ""


@dataclass
class Table:
    """All outcomes of a run."""

    outcomes: list[Outcome] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Lay them out."""
        order = {edge: number for number, edge in enumerate(EDGES)}
        rows = [
            (o.edge, o.action, o.point, o.outcome, f"{o.seconds:.1f}" if o.seconds else "", o.note)
            for o in sorted(self.outcomes, key=lambda o: (order.get(o.edge, 9), o.action, o.point))
        ]
        rows.insert(0, ("edge", "action", "point", "outcome", "s", ""))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


CELLS: list[Cell] = []


def cell(
    edge: str, action: str, point: str, *, core: bool = False
) -> Callable[[Callable[[Rig], None]], Callable[[Rig], None]]:
    """Put a function into the grid; `core` cells are in every run, whatever others there are."""

    def put(run: Callable[[Rig], None]) -> Callable[[Rig], None]:
        CELLS.append(Cell(edge, action, point, run, core))
        return run

    return put


def of_each_kind(cells: Sequence[Cell]) -> list[Cell]:
    """Return the core cells, and the last cell of each action that no core cell has."""
    core = [cell for cell in cells if cell.core]
    others = {cell.action: cell for cell in cells}
    for cell in core:
        others.pop(cell.action, None)
    return [*core, *others.values()]


# Edge, action, point, and why there is no such cell.
NOT_APPLICABLE = (
    ("postgres", "lose all data", "any", "another history: a stop, not a recovery; test_another_history_is_refused"),
    ("postgres", "fail after the effect", "commit of the app", "the app's own link; either way the slot tells"),
    ("clickhouse", "lose all data", "any", "it is the store and the checkpoint; nothing could bring the rows back"),
    ("redis", "any", "recovery", "recovery asks Postgres and ClickHouse only"),
    ("worker", "any", "recovery, feedback", "workers take no part in either"),
    ("worker", "refuse, cut, slow", "any", "a worker listens on no port; its links are the other edges"),
    ("worker", "lose all data", "any", "it keeps nothing"),
    ("reader", "refuse, cut, slow", "any", "a reader listens on no port; its links are the other edges"),
    ("reader", "lose all data", "any", "it keeps nothing but what is in flight; every kill loses that"),
    ("reader", "any", "insert", "the reader does not insert"),
    ("clickhouse", "any", "feedback", "feedback goes to Postgres only"),
    ("postgres", "any", "dispatch, insert", "neither touches Postgres; see the points of the reader and worker"),
)
