"""Every cell: rows in ClickHouse = rows committed, once each, and the slot at no instant past what is stored."""

from collections.abc import Callable

import pytest

from tests.faults import cells_clickhouse, cells_postgres, cells_reader, cells_redis, cells_worker
from tests.faults.conftest import fault
from tests.faults.grid import CELLS, EDGES, NOT_APPLICABLE, Cell, of_each_kind
from tests.faults.rig import Rig

# A module of cells that nobody names here would be left out in silence.
MODULES = (cells_postgres, cells_redis, cells_clickhouse, cells_worker, cells_reader)

# `make test` does everything that can be done to an edge once; `make test-all` does it to each edge at each point.
EACH_KIND = of_each_kind(CELLS)

pytestmark = pytest.mark.timeout(150)


@pytest.mark.parametrize("cell", [fault(cell, thorough=cell not in EACH_KIND) for cell in CELLS])
def test_a_fault_loses_and_repeats_nothing(
    rig: Rig, cell: Cell, record_property: Callable[[str, object], None]
) -> None:
    with rig.trial() as watch:
        cell.run(rig)
    record_property("samples", watch.samples)


def test_every_edge_has_cells_and_no_cell_is_twice() -> None:
    names = [cell.name for cell in CELLS]
    assert len(names) == len(set(names))
    assert {cell.edge for cell in CELLS} == set(EDGES)
    assert all(why for *_, why in NOT_APPLICABLE)


def test_each_action_and_each_edge_is_in_every_run() -> None:
    assert {cell.action for cell in EACH_KIND} == {cell.action for cell in CELLS}
    assert {cell.edge for cell in EACH_KIND} == set(EDGES)
    assert len({cell.name for cell in EACH_KIND}) == len(EACH_KIND) < len(CELLS) / 2
