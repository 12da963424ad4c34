"""The alert rules as text: each can be acted upon, keeps pipelines apart, and has cases that show it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.prometheus import FOLDER, RULES, alerts

ROOT = FOLDER.parents[1]
ALERTS = alerts()
RECORDED = {
    rule["record"]: rule
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
    if "record" in rule
}
CASES = {path.stem: yaml.safe_load(path.read_text())["tests"] for path in sorted((FOLDER / "tests").glob("*.yml"))}
INHIBITIONS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alertmanager.yml").read_text())["inhibit_rules"]

# Whatever else is wrong: these are never muted, since nothing else that is sent says that somebody has to act.
NEVER_MUTED = {name for name in ALERTS if "Wal" in name} | {
    "OuthaulSlotGone",
    "OuthaulSlotLost",
    "OuthaulAuditMissing",
    "OuthaulDeadLetters",
    "OuthaulViewRefuses",
    "OuthaulPostgresUnreachable",
    "OuthaulClickHouseUnreachable",
    "OuthaulRedisUnreachable",
    "OuthaulExporterGone",
    "OuthaulPausedLong",
}


def named(matchers: list[str]) -> set[str]:
    return set(re.findall(r"Outhaul\w+", " ".join(matchers)))


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_urgent_it_is_whose_it_is_and_which_page_helps(name: str) -> None:
    rule: Any = ALERTS[name]
    assert name.startswith("Outhaul")
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert "for" in rule
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert "{{ $labels.source }}" in notes["summary"]
    assert not notes["summary"].endswith(".")
    page = ROOT / notes["runbook_url"]
    assert page.parent == ROOT / "docs" / "runbooks"
    assert f"`{name}`" in page.read_text(), "the page does not name the alert"


@pytest.mark.parametrize("name", [*ALERTS, *RECORDED])
def test_what_a_rule_sums_up_it_sums_up_by_pipeline(name: str) -> None:
    expression = (ALERTS | RECORDED)[name]["expr"]
    assert isinstance(expression, str)
    # An aggregation without `by`, or by other labels only, would mix pipelines.
    found = re.findall(r"\b(sum|min|max|count|group|avg)\b(?: by \(([^)]*)\))?", expression)
    assert found
    assert all("source" in by.split(", ") for _, by in found), found
    joins = re.findall(r"\b(?:and|unless)\b(?: on \(([^)]*)\))?", expression)
    assert all(on == "source" for on in joins), joins


@pytest.mark.parametrize("name", [*ALERTS, *RECORDED])
def test_a_rule_asks_only_for_metrics_that_are_documented(name: str) -> None:
    expression = str((ALERTS | RECORDED)[name]["expr"])
    asked = {re.sub("_bucket$", "", word) for word in re.findall(r"\bouthaul_\w+", expression)}
    documented = set(re.findall(r"\bouthaul_\w+", (ROOT / "docs" / "reference" / "metrics.md").read_text()))
    assert asked <= documented


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_case_in_which_it_fires_and_clears_and_one_at_rest(name: str) -> None:
    about = [test for tests in CASES.values() for test in tests if name in {look["alertname"] for look in looks(test)}]
    verdicts = [
        [bool(look.get("exp_alerts")) for look in looks(test) if look["alertname"] == name]
        for test in about
        if test not in CASES["rest"]
    ]
    assert any(is_fired[0] is False and is_fired[-2:] == [True, False] for is_fired in verdicts)
    at_rest = [look for test in CASES["rest"] for look in looks(test) if look["alertname"] == name]
    assert at_rest
    assert not any("exp_alerts" in look for look in at_rest)


def looks(test: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = test["alert_rule_test"]
    return found


@pytest.mark.parametrize("name", ALERTS)
def test_a_case_of_each_alert_has_another_pipeline_that_is_well(name: str) -> None:
    about = [test for tests in CASES.values() for test in tests if any("exp_alerts" in one for one in looks(test))]
    assert any(name in str(looks(test)) and 'source="post"' in str(test["input_series"]) for test in about)


def test_causes_mute_what_follows_from_them_within_a_pipeline_and_nothing_else() -> None:
    for rule in INHIBITIONS:
        causes, follow = named(rule["source_matchers"]), named(rule["target_matchers"])
        assert causes <= set(ALERTS), causes - set(ALERTS)
        assert follow <= set(ALERTS), follow - set(ALERTS)
        assert not follow & NEVER_MUTED
        assert not follow & causes
        assert rule["equal"] == ["source"]
        # A warning is looked at in the morning, so it must not keep a page from being sent.
        pages = {name for name in follow if severity(name) == "critical"}
        assert not pages or all(severity(name) == "critical" for name in causes), (causes, pages)


def severity(name: str) -> str:
    rule: Any = ALERTS[name]
    return str(rule["labels"]["severity"])


def test_the_index_of_the_runbooks_has_all_alerts_and_their_pages() -> None:
    index = (ROOT / "docs" / "runbooks" / "README.md").read_text()
    rows = dict(re.findall(r"^\| `(Outhaul\w+)` \|.*\(([a-z-]+\.md)\) \|$", index, re.MULTILINE))
    pages: dict[str, str] = {}
    for name in ALERTS:
        rule: Any = ALERTS[name]
        pages[name] = rule["annotations"]["runbook_url"].removeprefix("docs/runbooks/")
    assert rows == pages
