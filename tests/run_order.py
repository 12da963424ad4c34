"""Collected tests -> the longest first, and tests of one module fixture in one process.

Registered by tests/conftest.py. Pytest's own order is random (pytest-randomly) and stays so among equals.

Source: https://pytest-xdist.readthedocs.io/en/stable/distribution.html
"""

from __future__ import annotations

import os

import pytest

# More processes than cores, so that some compute while others wait; each has servers of its own.
_PROCESSES_PER_CORE = 2.5
_PROCESS_BYTES = 2 << 30
# Made once for the whole run, where it is asked for; not so the servers, which every process has.
_MADE_ONCE = {"built", "installed"}
# Makes things for its module, but one for each test.
_MAKERS = {"make_rig"}
# Tests without servers take milliseconds, less than it takes to hand them out one by one.
_WITHOUT_SERVERS = "unit"
_FOLDERS = ("acceptance", "faults", "integration", _WITHOUT_SERVERS)


def pytest_xdist_auto_num_workers() -> int:
    """Return the number of processes for `-n auto`."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(round(cores * _PROCESSES_PER_CORE), memory // _PROCESS_BYTES))


# After pytest-randomly, which shuffles before all others, and before xdist, which then knows the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    groups = {item: _group(item) for item in items}
    for item, group in groups.items():
        if group:
            item.add_marker(pytest.mark.xdist_group(group))
    # A group takes as long as all of its tests.
    slow = {groups[item] or item for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: ((groups[item] or item) not in slow, _FOLDERS.index(item.path.parent.name)))


def _group(item: pytest.Item) -> str:
    if item.path.parent.name == _WITHOUT_SERVERS or not isinstance(item, pytest.Function):
        return item.path.stem
    found = item._fixtureinfo.name2fixturedefs
    if _MADE_ONCE.intersection(found):
        return "made-once"
    shared = sorted(name for name in found if found[name][-1].scope == "module" and name not in _MAKERS)
    return "-".join([item.path.stem, *shared]) if shared else ""
