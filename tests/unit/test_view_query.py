"""What of a view can be compared with its target, and why the rest cannot."""

from __future__ import annotations

import pytest

from outhaul.cdc_reader.outbox.view_query import Plan, plan
from outhaul.sink.schema import Table

AGGREGATES = frozenset({"count", "sum", "max", "min", "avg", "uniq", "any", "grouparray", "sumwithoverflow"})


def table(engine: str = "MergeTree", sorting_key: str = "", arguments: str = "") -> Table:
    definition = f"{engine}{arguments} ORDER BY ({sorting_key}) SETTINGS non_replicated_deduplication_window = 100"
    return Table("t", engine, definition, "", sorting_key)


def planned(as_select: str, target: Table, **types: str) -> Plan:
    found = plan(as_select, [*types], target, types, AGGREGATES)
    assert isinstance(found, Plan), found
    return found


def test_rows_that_are_made_one_by_one_are_counted_by_what_they_contain() -> None:
    found = planned(
        "SELECT id, upper(event_type) AS kind FROM l.event_log WHERE id > 3", table(), id="Int64", kind="String"
    )
    assert (found.keys, found.sums, found.counts_rows) == (("id", "kind"), ("count()",), True)


def test_counts_and_sums_of_a_query_are_summed_by_its_keys() -> None:
    found = planned(
        "SELECT toStartOfHour(t) AS hour, count() AS c, sumIf(n, n > 3) AS s, max(n) AS m, sum(n) + 1 AS o, "
        "sum(f) AS floats, any(concat(k, ', ', 'FROM')) AS a FROM l.event_log GROUP BY hour",
        table("SummingMergeTree", "hour"),
        hour="DateTime",
        c="UInt64",
        s="UInt64",
        m="UInt64",
        o="UInt64",
        floats="Float64",
        a="String",
    )
    assert found.keys == ("hour",)
    assert found.sums == ("sum(`c`)", "sum(`s`)")
    assert found.left_out == ("m", "o", "floats", "a")
    assert (found.counts_rows, found.is_growing) == (False, True)


def test_a_group_that_the_target_does_not_sort_by_is_left_out_where_merges_would_sum_it() -> None:
    columns = {"k": "String", "n": "UInt64", "c": "UInt64"}
    text = "SELECT k, n, count() AS c FROM l.event_log GROUP BY k, n"
    columns_of_states = columns | {"c": "SimpleAggregateFunction(sum, UInt64)"}
    aggregating = planned(text, table("AggregatingMergeTree", "k"), **columns_of_states)
    assert (aggregating.keys, aggregating.sums, aggregating.left_out) == (("k",), ("sum(`c`)",), ("n",))
    assert planned(text, table("MergeTree", "k"), **columns).keys == ("k", "n")
    summing = planned(text, table("SummingMergeTree", "k"), **columns)
    assert (summing.keys, summing.sums) == (("k",), ("sum(`n`)", "sum(`c`)"))


def test_rows_that_a_target_sums_are_compared_by_their_sums() -> None:
    text = "SELECT event_type, 1 AS n, toInt32(x) AS signed, 2 AS rest FROM l.event_log"
    columns = {"event_type": "LowCardinality(String)", "n": "UInt32", "signed": "Int32", "rest": "UInt8"}
    found = planned(text, table("SummingMergeTree", "event_type", "((n, signed))"), **columns)
    assert (found.keys, found.sums, found.left_out) == (("event_type",), ("sum(`n`)", "sum(`signed`)"), ("rest",))
    assert not found.is_growing
    replicated = planned(text, table("ReplicatedSummingMergeTree", "event_type", "('/path', '{replica}')"), **columns)
    assert replicated.sums == ("sum(`n`)", "sum(`signed`)", "sum(`rest`)")


def test_states_of_counts_and_sums_are_merged_and_others_are_left_out() -> None:
    found = planned(
        "SELECT k, countState() AS c, sumIfState(n, n > 1) AS s, uniqState(n) AS u FROM l.event_log GROUP BY k",
        table("AggregatingMergeTree", "k"),
        k="String",
        c="AggregateFunction(count)",
        s="AggregateFunction(sumIf, UInt64, UInt8)",
        u="AggregateFunction(uniq, UInt64)",
    )
    assert (found.sums, found.left_out) == (("countMerge(`c`)", "sumIfMerge(`s`)"), ("u",))


def test_of_a_target_that_replaces_rows_the_keys_are_compared() -> None:
    found = planned("SELECT id, name FROM l.event_log", table("ReplacingMergeTree", "id"), id="Int64", name="String")
    assert (found.keys, found.sums, found.left_out) == (("id",), ("toUInt64(1)",), ("name",))


@pytest.mark.parametrize(
    ("as_select", "target", "word"),
    [
        ("SELECT id FROM l.e LEFT JOIN l.o ON e.id = o.id", table(), "joins"),
        ("SELECT id FROM l.e WHERE id IN (SELECT id FROM l.o)", table(), "query within"),
        ("SELECT DISTINCT id FROM l.e", table(), "DISTINCT"),
        ("SELECT id FROM l.e UNION ALL SELECT id FROM l.o", table(), "query within"),
        ("SELECT id FROM l.e LIMIT 1 BY id", table(), "LIMIT"),
        ("SELECT id, now() AS t FROM l.e", table(), "now"),
        ("SELECT id, dictGet('d', 'a', id) AS t FROM l.e", table(), "dictGet"),
        ("SELECT id FROM l.e", table("Kafka"), "Kafka"),
        ("SELECT id FROM l.e", table("CollapsingMergeTree", "id"), "remove rows"),
        ("SELECT id FROM l.e", table("MergeTree", "id", " TTL t + toIntervalDay(1)"), "TTL"),
        ("SELECT max(id) AS id FROM l.e", table(), "no column is a sum"),
        ("SELECT k AS id, count() FROM l.e GROUP BY k, 'FROM'", table(), "cannot be told apart"),
    ],
)
def test_what_cannot_be_compared_is_said_with_the_reason(as_select: str, target: Table, word: str) -> None:
    found = plan(as_select, ["id"], target, {"id": "Int64"}, AGGREGATES)
    assert isinstance(found, str)
    assert word in found


@pytest.mark.parametrize(
    "as_select",
    [
        "SELECT arrayJoin(a) AS id FROM l.e ARRAY JOIN b",
        "SELECT * EXCEPT (event_context) FROM l.e",
        "WITH 3 AS x SELECT id + x AS id FROM l.e",
        "SELECT id FROM l.e WHERE k != 'SELECT now() FROM x JOIN y LIMIT' AND `LIMIT` = 1",
    ],
)
def test_words_in_texts_and_functions_of_one_row_hinder_nothing(as_select: str) -> None:
    assert planned(as_select, table(), id="Int64").counts_rows
