"""The rules and both configurations, as the programs that use them read them."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.prometheus import FOLDER, RULES, program

if TYPE_CHECKING:
    from pathlib import Path

CASES = sorted((FOLDER / "tests").glob("*.yml"))


def said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_prometheus_takes_the_rules_and_the_example_configuration() -> None:
    said(program("promtool"), "check", "rules", str(RULES))
    assert "1 rule files found" in said(program("promtool"), "check", "config", str(FOLDER / "prometheus.yml"))


def test_alertmanager_takes_the_example_configuration() -> None:
    assert "SUCCESS" in said(program("amtool"), "check-config", str(FOLDER / "alertmanager.yml"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_each_alert_fires_in_its_cases_not_at_rest_and_clears(path: Path) -> None:
    said(program("promtool"), "test", "rules", str(path))


@pytest.mark.thorough
def test_a_case_fails_when_the_rule_is_another_one(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / RULES.name).write_text(
        RULES.read_text().replace("reader_lag_seconds) > 1 * 60", "reader_lag_seconds) > 2 * 60")
    )
    (tmp_path / "tests" / "delivery.yml").write_text((FOLDER / "tests" / "delivery.yml").read_text())
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(tmp_path / "tests" / "delivery.yml")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "OuthaulLagHigh" in done.stdout + done.stderr
