"""A program of Prometheus -> where it is on this machine; a Prometheus that scrapes what a test has started.

Edge: looks at the path, starts a process. Where one is missing, a laptop skips the test, and CI, which installs them,
fails it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from tests.acceptance.metrics_pages import free_port
from tests.conftest import until

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parents[1] / "deploy" / "prometheus"
RULES = FOLDER / "outhaul.rules.yml"

# Debian's names first; elsewhere Alertmanager has no prefix.
_NAMES = {
    "promtool": ("promtool",),
    "amtool": ("amtool",),
    "prometheus": ("prometheus",),
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),
}
_HOW = "apt-get install --no-install-recommends prometheus prometheus-alertmanager"


def program(name: str) -> str:
    """Return the path of promtool, amtool, prometheus or alertmanager; skip the test if it is not installed."""
    for candidate in _NAMES[name]:
        if path := shutil.which(candidate):
            return path
    reason = f"{name} is not installed: {_HOW}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def alerts() -> dict[str, dict[str, object]]:
    """Return all alerts of the rule file by their names."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


@dataclass
class Prometheus:
    """A Prometheus that runs."""

    port: int

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an expression as they are now."""
        asked = f"http://127.0.0.1:{self.port}/api/v1/query?{urlencode({'query': expression})}"
        try:
            with urlopen(asked, timeout=20) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from None
        return found


@contextmanager
def scraping(
    targets: dict[str, int], source: str, folder: Path, *, rules: Path | None = None, alertmanager_port: int = 0
) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes processes of a pipeline every second, and maybe judges them by rules.

    `targets` are the processes' ports by their names.
    """
    jobs = [
        {
            "job_name": f"outhaul-{name}",
            "honor_labels": True,
            "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"source": source}}],
        }
        for name, port in targets.items()
    ]
    whole: dict[str, Any] = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "scrape_configs": jobs,
    }
    if rules is not None:
        alertmanagers = [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager_port}"]}]}]
        whole |= {"rule_files": [str(rules)], "alerting": {"alertmanagers": alertmanagers}}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(whole))
    made = Prometheus(free_port())
    command = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{made.port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until(lambda: _answers(made, len(targets)), what="Prometheus has scraped all targets twice")
        yield made
    finally:
        process.terminate()
        process.wait(20)


def _answers(made: Prometheus, targets: int) -> bool:
    try:
        return len(made.ask("count_over_time(up[1m]) >= 2 and up == 1")) == targets
    except (OSError, AssertionError):  # it starts
        return False
