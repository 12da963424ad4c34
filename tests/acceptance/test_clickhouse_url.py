"""`pytest --clickhouse-url` runs tests on a ClickHouse that it does not control; here that is a second engine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from outhaul.deploy.local.stack import Stack
from outhaul.sink.clickhouse import ClickHouse

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
_COPY = "test_a_copy_outlives_what_it_needs_and_stores_each_row_once[restart_clickhouse]"
CHOSEN = (
    "tests/integration/test_exactly_once.py::test_a_batch_sent_twice_is_stored_once",
    f"tests/acceptance/test_copy_faults.py::{_COPY}",
)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[str]:
    """Return the address of an engine that the stack of the tests does not know, without a database."""
    other = Stack(tmp_path / "elsewhere")
    other.up(["clickhouse"])
    yield other.env()["OUTHAUL_CLICKHOUSE_URL"]
    other.down(["clickhouse"])


@pytest.mark.thorough
def test_tests_run_on_a_clickhouse_elsewhere_and_say_which_could_not(elsewhere: str) -> None:
    address = elsewhere.rpartition("/")[0]
    command = [sys.executable, "-m", "pytest", "-n0", "-rs", "-m", "not long", "--clickhouse-url", address, *CHOSEN]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert "1 passed, 1 skipped" in done.stdout, done.stdout
    assert "needs control over the process of ClickHouse" in done.stdout
    with ClickHouse(elsewhere, timeout_s=10) as clickhouse:
        left = [name for (name,) in clickhouse.rows("SELECT name FROM system.databases") if re.match(r"t\d+_\d+", name)]
    assert not left
