"""The rule file -> the same rules in a hurry, watched by a real Prometheus and a real Alertmanager.

Edge: starts both. Every time in the rules is a sixtieth of what it is in the file, minutes are seconds; metrics,
labels, comparisons and sizes are those of the file.
"""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.request import urlopen

import yaml

from tests.acceptance.pages import free_port
from tests.conftest import until
from tests.prometheus import RULES, Prometheus, program, scraping

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_UNITS_S = {"s": 1, "m": 60, "h": 3600}
# A rate needs two scrapes, one a second.
_LEAST_S = 3


def in_a_hurry(rules: str) -> str:
    """Make seconds of the minutes in ranges, offsets, `for` and comparisons with times."""

    def shorter(found: re.Match[str]) -> str:
        seconds = int(found[2]) * _UNITS_S[found[3]] // 60
        least = 0 if found[1].startswith("for") else _LEAST_S
        return f"{found[1]}{max(seconds, least)}s"

    rules = re.sub(r"(\[|offset |for: )(\d+)([smh])\b", shorter, rules)
    return re.sub(r"\b(\d+) \* (60|3600)\b", lambda found: str(int(found[1]) * int(found[2]) // 60), rules)


@dataclass
class Watching:
    """Prometheus and Alertmanager that watch one pipeline."""

    prometheus: Prometheus
    alertmanager_port: int
    source: str

    def firing(self) -> set[str]:
        """Return the alerts of the pipeline that Alertmanager has and holds for true now."""
        with urlopen(f"http://127.0.0.1:{self.alertmanager_port}/api/v2/alerts", timeout=10) as answer:
            found = json.load(answer)
        return {one["labels"]["alertname"] for one in found if one["labels"].get("source") == self.source}

    def fires(self, *names: str) -> None:
        until(lambda: set(names) <= self.firing(), within_s=60, what=f"{names} fire")

    def clears(self, *names: str) -> None:
        until(lambda: not set(names) & self.firing(), within_s=90, what=f"{names} have cleared")


@contextmanager
def watching(ports: dict[str, int], source: str, folder: Path) -> Iterator[Watching]:
    """Watch processes of a pipeline by the rules in a hurry; `ports` are those of their metrics."""
    rules, port = folder / "rules.yml", free_port()
    rules.write_text(in_a_hurry(RULES.read_text()))
    config = folder / "alertmanager.yml"
    config.write_text(yaml.safe_dump({"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}))
    command = [
        program("alertmanager"),
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with (folder / "alertmanager.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with scraping(ports, source, folder, rules=rules, alertmanager_port=port) as prometheus:
            watch = Watching(prometheus, port, source)
            until(lambda: _answers(watch), what="Alertmanager answers")
            yield watch
    finally:
        process.terminate()
        process.wait(20)


def _answers(watch: Watching) -> bool:
    try:
        watch.firing()
    except OSError:
        return False
    return True
