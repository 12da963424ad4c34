"""The labels that rules go by are those that docs/reference/metrics.md gives the metric, and so are their values."""

from __future__ import annotations

import re

import pytest
import yaml

from outhaul.cdc_reader.session.reader_state import PHASES
from tests.prometheus import FOLDER, RULES

DOCS = (FOLDER.parents[1] / "docs" / "reference" / "metrics.md").read_text()
ROWS = re.findall(r"^\| `(outhaul_\w+)` \| (\w+) \| ([^|]*) \|", DOCS, re.MULTILINE)
# What stands in code in a row's meaning is a label of the metric, or one of the values of one.
WORDS = {name: {"source", *re.findall(r"`([a-z0-9_]+)`", means)} for name, _, means in ROWS}
HISTOGRAMS = {name for name, kind, _ in ROWS if kind == "histogram"}
# Prometheus' own, with the labels of our scrape configuration.
WORDS["up"] = {"job", "instance", "source", "outhaul-reader", "outhaul-worker", "outhaul-exporter"}
RULED = {
    rule.get("alert") or rule["record"]: str(rule["expr"])
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
}
# Rules that others ask for are looked at where they are made.
RECORDED = {name for name in RULED if ":" in name}

METRIC = r"\b(outhaul_\w+|up)\b(?!:)(?:\{([^}]*)\})?"
MATCHER = r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"'
AGGREGATION = r"\b(?:sum|min|max|count|group|avg) by \(([^)]*)\) \("


def words_of(metric: str) -> set[str]:
    """Return the labels of a metric and their values."""
    family = metric.removesuffix("_bucket")
    return WORDS[family] | ({"le"} if family in HISTOGRAMS and metric != family else set())


def inside(text: str, begin: int) -> str:
    """Return what stands in the brackets that open before `begin`."""
    depth = 1
    for place, letter in enumerate(text[begin:], begin):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if not depth:
            return text[begin:place]
    raise AssertionError(text)


def unknown(expression: str) -> set[tuple[str, str]]:
    """Return the pairs of a metric and a label, or a label's value, that the docs do not have."""
    bare = re.sub("|".join(RECORDED), "", expression)
    found = set()
    for metric, matchers in re.findall(METRIC, bare):
        asked = {word for label, values in re.findall(MATCHER, matchers) for word in (label, *alternatives(values))}
        found |= {(metric, word) for word in asked - words_of(metric)}
    for by in re.finditer(AGGREGATION, bare):
        for metric, _ in re.findall(METRIC, inside(bare, by.end())):
            found |= {(metric, label) for label in set(by[1].split(", ")) - words_of(metric)}
    return found


def alternatives(values: str) -> list[str]:
    # `a-(b|c)` is a-b or a-c; `a|b` is a or b.
    head, bracket, rest = values.partition("(")
    return [head + one for one in rest.rstrip(")").split("|")] if bracket else values.split("|")


@pytest.mark.parametrize("name", RULED)
def test_a_rule_goes_by_labels_and_values_that_are_documented_for_the_metric(name: str) -> None:
    assert not unknown(RULED[name])


@pytest.mark.parametrize(
    ("expression", "pair"),
    [
        ('outhaul_reader_phase{phase="sleeping"}', ("outhaul_reader_phase", "sleeping")),
        ('outhaul_slot_status{phase=~"lost|missing"}', ("outhaul_slot_status", "phase")),
        ("sum by (source, server) (rate(outhaul_redis_up[1m]))", ("outhaul_redis_up", "server")),
        ("max by (source, le) (outhaul_worker_insert_seconds)", ("outhaul_worker_insert_seconds", "le")),
        ('count by (source, job) (up{job=~"outhaul-(reader|writer)"})', ("up", "outhaul-writer")),
    ],
)
def test_a_label_or_value_that_no_metric_has_is_found(expression: str, pair: tuple[str, str]) -> None:
    assert pair in unknown(expression)


def test_a_reader_captures_in_each_phase_in_which_it_has_recovered_and_in_no_other() -> None:
    found = re.search(r'max_over_time\(outhaul_reader_phase\{phase!~"([^"]*)"', RULED["OuthaulNotCapturing"])
    assert found
    assert set(PHASES) - set(found[1].split("|")) == {"streaming", "waiting", "pausing", "paused", "draining"}
    assert set(found[1].split("|")) < set(PHASES)
