"""Steps between partitions, ages, and what Celery beat is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest

from outhaul.cdc_reader.operate.pruning.partition_bounds import (
    Bound,
    Months,
    Range,
    Step,
    following,
    name,
    parse,
    step_of,
)
from outhaul.cdc_reader.operate.pruning.prune import PruneRequest
from outhaul.cdc_reader.operate.pruning.stored_rows import _conditions
from outhaul.sink import quantities
from outhaul.sink.app import configuration
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.settings import load
from outhaul.sink.task_names import PRUNE


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def ranges(*bounds: Bound) -> list[Range]:
    return [Range(left, right) for left, right in pairwise(bounds)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "FOR VALUES FROM ('2026-01-01 00:00:00+00') TO ('2026-02-01 00:00:00+00')",
            Range(day("2026-01-01"), day("2026-02-01")),
        ),
        ("FOR VALUES FROM ('1') TO ('1000')", Range(1, 1000)),
        ("FOR VALUES FROM (-5) TO (7)", Range(-5, 7)),
        ("FOR VALUES FROM (MINVALUE) TO ('2026-02-01')", Range(None, day("2026-02-01"))),
        ("DEFAULT", None),
        ("FOR VALUES IN ('a')", None),
        ("FOR VALUES WITH (modulus 4, remainder 0)", None),
        ("FOR VALUES FROM (1, 2) TO (3, 4)", None),
    ],
)
def test_bounds_are_read_as_postgres_prints_them(text: str, found: Range | None) -> None:
    assert parse(text) == found


@pytest.mark.parametrize(
    ("bounds", "step"),
    [
        ([day("2025-12-01"), day("2026-01-01"), day("2026-02-01"), day("2026-03-01")], Months(1)),
        ([day("2025-07-01"), day("2025-10-01"), day("2026-01-01")], Months(3)),
        ([day("2024-01-01"), day("2025-01-01"), day("2026-01-01")], Months(12)),
        ([day("2026-01-05"), day("2026-01-12"), day("2026-01-19")], timedelta(days=7)),
        ([day("2026-01-01"), day("2026-01-02"), day("2026-01-03")], timedelta(days=1)),
        ([1, 1001, 2001], 1000),
        ([day("2026-01-01"), day("2026-02-01"), day("2026-02-15")], None),
        ([1, 1001, 1501], None),
        ([1, 1001], None),
    ],
)
def test_a_step_is_reported_where_the_bounds_agree_on_one(bounds: list[Bound], step: Step | None) -> None:
    assert step_of(ranges(*bounds)) == step
    assert step_of(list(reversed(ranges(*bounds)))) == step


def test_bounds_with_a_gap_or_an_open_end_have_no_step() -> None:
    assert step_of([Range(1, 11), Range(21, 31)]) is None
    assert step_of([Range(None, 11), Range(11, 21)]) is None


def test_months_follow_each_other_over_the_year_s_end() -> None:
    found = list(islice(following(day("2025-12-01"), Months(1)), 3))
    assert found == ranges(day("2025-12-01"), day("2026-01-01"), day("2026-02-01"), day("2026-03-01"))
    assert list(islice(following(1, 10), 2)) == ranges(1, 11, 21)


def test_a_partition_is_named_after_its_lower_bound() -> None:
    assert name("outbox", day("2026-01-01")) == "outbox_20260101"
    assert name("outbox", datetime(2026, 1, 1, 6, tzinfo=UTC)) == "outbox_20260101_060000"
    assert name("outbox", 1001) == "outbox_from_1001"


def test_a_dense_run_of_ids_is_asked_for_as_a_range_and_a_sparse_one_by_name() -> None:
    assert list(_conditions([3, 1, 2])) == ["BETWEEN 1 AND 3"]
    assert list(_conditions([1, 10_000_000])) == ["IN (1, 10000000)"]
    assert len(list(_conditions(range(0, 12_000 * 100, 100)))) == 3


@pytest.mark.parametrize("text", ["7", "d", "-1d", "7 d", "7d ", "7y"])
def test_an_age_without_a_unit_is_refused(text: str) -> None:
    with pytest.raises(FatalError, match="prune_older_than") as told:
        load(prune_older_than=text)
    assert told.value.exit_code is Exit.SETTINGS


def test_an_age_beyond_all_time_makes_nothing_old() -> None:
    assert PruneRequest(quantities.age("999999999w")).cutoff(datetime.now(UTC)).year == 1


def test_beat_prunes_only_where_the_settings_ask_for_it() -> None:
    assert configuration(load())["beat_schedule"] == {}
    assert configuration(load(prune_older_than=""))["beat_schedule"] == {}
    for age in ("7d", "0s"):
        assert configuration(load(prune_older_than=age))["beat_schedule"]["prune"]["task"] == PRUNE
