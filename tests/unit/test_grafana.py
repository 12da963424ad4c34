"""The dashboards as text: made by the code beside them, readable by Grafana, each panel with words for an operator."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from outhaul.deploy.grafana.__main__ import dashboards

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "grafana"
MADE = dashboards()
# The SDK knows what every data source's annotations have; these are of Prometheus' own.
OF_PROMETHEUS = {"step", "titleFormat", "textFormat"}
Json = dict[str, Any]


def panels(made: Json) -> list[Json]:
    """Return all panels, those of folded rows, too, without the rows."""
    found = [one for panel in made["panels"] for one in (panel, *panel.get("panels", ()))]
    return [panel for panel in found if panel["type"] != "row"]


@pytest.mark.parametrize("name", MADE)
def test_the_file_is_what_its_code_makes(name: str) -> None:
    assert (FOLDER / name).read_text() == MADE[name], "run: python -m outhaul.deploy.grafana"


@pytest.mark.parametrize("name", MADE)
def test_grafanas_own_schema_loses_nothing_of_it(name: str) -> None:
    register_default_plugins()
    made = json.loads(MADE[name])
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(made)))
    assert {path for path in lost(made, again) if path.rpartition(".")[2] not in OF_PROMETHEUS} == set()


def lost(before: Any, after: Any, path: str = "") -> Iterator[str]:
    if isinstance(before, dict):
        for key, value in before.items():
            if not isinstance(after, dict) or key not in after:
                yield f"{path}.{key}"
            else:
                yield from lost(value, after[key], f"{path}.{key}")
    elif isinstance(before, list):
        if not isinstance(after, list) or len(before) != len(after):
            yield f"{path}[]"
        else:
            for number, (one, other) in enumerate(zip(before, after, strict=True)):
                yield from lost(one, other, f"{path}[{number}]")
    elif before != after:
        yield path


@pytest.mark.parametrize("name", MADE)
def test_each_panel_has_a_number_a_place_a_unit_and_words_for_an_operator(name: str) -> None:
    made = json.loads(MADE[name])
    numbers = [panel["id"] for panel in made["panels"]]
    assert len(numbers) == len(set(numbers))
    taken: set[tuple[int, int]] = set()
    for panel in made["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels(made):
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"].get("unit") or panel["type"] == "heatmap", panel["title"]
        assert panel["targets"], panel["title"]
        pages = re.findall(r"\]\(\$\{?docs\}?/([\w./-]+)", panel["description"])
        assert pages, panel["title"]
        assert all((ROOT / "docs" / page).exists() for page in pages), panel["title"]


@pytest.mark.parametrize("name", MADE)
def test_it_asks_only_for_metrics_that_are_documented(name: str) -> None:
    documented = set(re.findall(r"\bouthaul_\w+", (ROOT / "docs" / "reference" / "metrics.md").read_text()))
    expressions = [target["expr"] for panel in panels(json.loads(MADE[name])) for target in panel["targets"]]
    words = {word for one in expressions for word in re.findall(r"\bouthaul_\w+", one)}
    asked = {re.sub("_bucket$|_count$|_sum$", "", word) for word in words}
    assert asked
    assert asked <= documented
    assert all('source=~"$source' in one for one in expressions if "outhaul_" in one)


def test_what_grafana_is_provisioned_with_is_yaml_of_its_first_version() -> None:
    files = sorted(FOLDER.glob("provisioning/*/*.yml"))
    assert [path.parent.name for path in files] == ["dashboards", "datasources"]
    for path in files:
        assert yaml.safe_load(path.read_text())["apiVersion"] == 1
