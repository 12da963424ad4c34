"""Rigs that live for a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from outhaul.deploy.local.stack import Stack
    from tests.faults.grid import Cell


def fault(cell: Cell, *, thorough: bool) -> Any:
    """Make a test's parameter of a cell; only `make test-all` runs a thorough one."""
    marks = [pytest.mark.fault(cell.edge, cell.action, cell.point)]
    return pytest.param(cell, id=cell.name, marks=[*marks, pytest.mark.thorough] if thorough else marks)


@pytest.fixture(scope="module")
def make_rig(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Rig]]:
    """Make rigs that live as long as the module."""
    rigs: list[Rig] = []

    def make(**options: Any) -> Rig:
        stack.up()
        rigs.append(Rig(stack, tmp_path_factory.mktemp("rig"), **options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture(scope="module")
def rig(make_rig: Callable[..., Rig]) -> Rig:
    """A running pipeline for fault after fault."""
    return make_rig()


@pytest.fixture(autouse=True)
def _end_of_logs(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    rigs = [value for value in request.node.funcargs.values() if isinstance(value, Rig)]
    for rig in rigs:
        for name in ("reader", "worker"):
            lines = rig.log(name).splitlines()
            print(f"--- {name}", *lines[-25:], sep="\n")
