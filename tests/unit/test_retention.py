"""A table's definition -> those rules of its TTL that remove rows."""

from __future__ import annotations

import pytest

from outhaul.sink.retention import removing


@pytest.mark.parametrize(
    ("ttl", "rules"),
    [
        ("", []),
        ("TTL toDateTime(event_date_time) + toIntervalDay(1)", ["toDateTime(event_date_time) + toIntervalDay(1)"]),
        ("TTL toDate(event_date_time) + toIntervalDay(1) TO DISK 'cold'", []),
        (
            "TTL greatest(toDateTime(event_date_time), toDateTime(id)), toDate(id) RECOMPRESS CODEC(ZSTD)",
            ["greatest(toDateTime(event_date_time), toDateTime(id))"],
        ),
        ("TTL toDateTime(event_date_time) DELETE WHERE id = 1", ["toDateTime(event_date_time) DELETE WHERE id = 1"]),
    ],
)
def test_only_rules_that_remove_rows_count(ttl: str, rules: list[str]) -> None:
    definition = f"MergeTree PARTITION BY toYYYYMM(event_date_time) ORDER BY id {ttl} SETTINGS index_granularity = 8192"
    assert removing(definition) == rules
