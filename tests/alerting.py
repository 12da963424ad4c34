"""The rule file -> the same rules in a hurry, watched by a real Prometheus and a real Alertmanager.

Edge: starts both. Every time in the rules is a sixtieth of what it is in the file, minutes are seconds, or less where a
test says so; sizes are those that a test says. Metrics, labels and comparisons are those of the file, and so are the
rules by which Alertmanager mutes what only follows.
"""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import yaml

from tests.acceptance.metrics_pages import free_port
from tests.conftest import until
from tests.prometheus import FOLDER, RULES, Prometheus, program, scraping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_UNITS_S = {"s": 1, "m": 60, "h": 3600}
# A rate needs two scrapes, one a second.
_LEAST_S = 3
# Long enough for all that `clears` waits for: a pipeline that was broken for long comes back by steps.
_CLEAR_S = 180


def in_a_hurry(rules: str, *, minute_s: float = 1.0, sizes: Mapping[str, str] | None = None) -> str:
    """Make `minute_s` seconds of each minute in ranges, offsets, `for` and comparisons with times.

    Args:
        rules: text of a rule file.
        minute_s: what a minute becomes, in seconds.
        sizes: what other numbers become, each as it stands in the file.

    Raises:
        ValueError: a number of `sizes` is not in the file.
    """

    def seconds(count: str, unit_s: int) -> int:
        return round(int(count) * unit_s / 60 * minute_s)

    def shorter(found: re.Match[str]) -> str:
        least = 0 if found[1].startswith("for") else _LEAST_S
        return f"{found[1]}{max(seconds(found[2], _UNITS_S[found[3]]), least)}s"

    rules = re.sub(r"(\[|offset |for: )(\d+)([smh])\b", shorter, rules)
    rules = re.sub(r"\b(\d+) \* (60|3600)\b", lambda found: str(seconds(found[1], int(found[2]))), rules)
    for size, other in (sizes or {}).items():
        if size not in rules:
            raise ValueError(f"no rule has the size {size}")
        rules = rules.replace(size, other)
    return rules


@dataclass
class Watching:
    """Prometheus and Alertmanager that watch one pipeline."""

    prometheus: Prometheus
    alertmanager_port: int
    source: str

    def firing(self) -> set[str]:
        """Return the alerts of the pipeline that Alertmanager has and holds for true now, muted or not."""
        return {one["labels"]["alertname"] for one in self._alerts()}

    def muted(self) -> set[str]:
        """Return those of them that Alertmanager does not send, since they follow from another."""
        return {one["labels"]["alertname"] for one in self._alerts() if one["status"]["inhibitedBy"]}

    def fires(self, *names: str, within_s: float = 120) -> None:
        self._until(lambda: set(names) <= self.firing(), within_s, f"{names} fire")

    def mutes(self, *names: str) -> None:
        self._until(lambda: set(names) <= self.muted(), 10, f"{names} are muted")

    def clears(self, *names: str) -> None:
        self._until(lambda: not set(names) & self.firing(), _CLEAR_S, f"{names} have cleared")

    def _until(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        try:
            until(condition, within_s=within_s, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}; firing: {sorted(self.firing())}, muted: {sorted(self.muted())}") from None

    def _alerts(self) -> list[dict[str, Any]]:
        with urlopen(f"http://127.0.0.1:{self.alertmanager_port}/api/v2/alerts", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return [one for one in found if one["labels"].get("source") == self.source]


@contextmanager
def watching(
    ports: dict[str, int],
    source: str,
    folder: Path,
    *,
    minute_s: float = 1.0,
    sizes: Mapping[str, str] | None = None,
) -> Iterator[Watching]:
    """Watch processes of a pipeline by the rules in a hurry; `ports` are those of their metrics."""
    rules, port = folder / "rules.yml", free_port()
    rules.write_text(in_a_hurry(RULES.read_text(), minute_s=minute_s, sizes=sizes))
    config = folder / "alertmanager.yml"
    inhibitions = yaml.safe_load((FOLDER / "alertmanager.yml").read_text())["inhibit_rules"]
    nobody = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}
    config.write_text(yaml.safe_dump(nobody | {"inhibit_rules": inhibitions}))
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
