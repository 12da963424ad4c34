"""The report of the benchmark, and what it needs; no test depends on the figures themselves."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from outhaul.sink.errors import FatalError
from tests.benchmarks.measure import Options, spread
from tests.benchmarks.report import moved
from tests.benchmarks.run import run

OLD = {
    "machine": {"cpus": 2},
    "ratios": {"end_to_end": {"median": 1.5, "max": 1.6}},
    "latency": {"1000": {"p50_ms": 200.0, "synchronous_commit": "on"}},
    "gone": 7,
}
NEW = {
    "machine": {"cpus": 64},
    "ratios": {"end_to_end": {"median": 1.8, "max": 1.62}},
    "latency": {"1000": {"p50_ms": 150.0, "synchronous_commit": "off"}},
    "new": 7,
}


def test_a_comparison_lists_what_both_have_and_what_moved_by_more_than_noise() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    table = moved(OLD, NEW)
    console.print(table)
    text = console.export_text()
    assert table.row_count == 2
    assert "ratios.end_to_end.median" in text
    assert "1.20" in text
    assert "latency.1000.p50_ms" in text
    assert "0.75" in text


def test_a_spread_is_minimum_median_and_maximum() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"min": 1.0, "median": 2.0, "max": 3.0}


@pytest.mark.parametrize("content", [None, "no figures"])
def test_figures_that_cannot_be_read_are_refused_before_anything_is_measured(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "old.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(FatalError, match="no figures of an earlier run"):
        run(Options(), as_json=True, compare=path)


def test_the_figures_of_a_run_survive_their_journey_through_json() -> None:
    assert moved(OLD, json.loads(json.dumps(OLD))).row_count == 0
