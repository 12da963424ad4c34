"""Reports of the grid's tests -> the table at the end of the run.

Registered by tests/conftest.py: the process that prints it may not be the one that runs the tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.grid import NOT_APPLICABLE, Outcome, Table

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

_TABLE = pytest.StashKey[Table]()
_CELL = "cell"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TABLE] = Table()
    config.pluginmanager.register(Collector(config.stash[_TABLE]))
    config.addinivalue_line("markers", "fault(edge, action, point): a cell of the fault grid")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    mark = item.get_closest_marker("fault")
    if mark is not None and (report.when == "call" or report.failed):
        # A property goes along with the report, from the process that ran the test to the one that prints the table.
        report.user_properties.append((_CELL, list(mark.args)))
    return report


class Collector:
    """Puts every cell that was run into the table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = dict(report.user_properties)
        where: Any = properties.pop(_CELL, None)
        if where is not None:
            note = "; ".join(f"{name}: {value}" for name, value in properties.items())
            edge, action, point = where
            outcome = Outcome(edge, action, point, report.outcome, report.duration, note)
            self._table.outcomes.append(outcome)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    table = config.stash[_TABLE]
    if not table.outcomes:
        return
    table.outcomes += [
        Outcome(edge, action, point, "not applicable", 0.0, why) for edge, action, point, why in NOT_APPLICABLE
    ]
    terminalreporter.section("fault grid")
    for line in table.lines():
        terminalreporter.write_line(line)
