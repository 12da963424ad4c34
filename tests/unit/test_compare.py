"""Which rows are missing, extra, different or repeated, and how a range of ids is divided."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outhaul.cdc_reader.capture.column_types import Oid
from outhaul.cdc_reader.capture.pgoutput_messages import Column
from outhaul.cdc_reader.outbox.compare import Compared, compare, divided
from outhaul.cdc_reader.outbox.event_identity import Identity, unit_us
from outhaul.cdc_reader.outbox.id_ranges import Letters, RowFingerprints

Row = tuple[int, int | None, int]
"""Id, time (None: the row has none) and a number for the contents."""


def rows(*given: Row) -> RowFingerprints:
    ids, times, contents = (
        np.array([row[0] for row in given], np.int64),
        np.array([row[1] or 0 for row in given], np.int64),
        np.array([row[2] for row in given], np.int64),
    )
    has_time = np.array([row[1] is not None for row in given], np.bool_)
    return RowFingerprints(ids, times, has_time, contents, contents + times, contents)


def found(outbox: list[Row], stored: list[Row], letters: Letters | None = None) -> dict[str, list[int]]:
    result = compare(0, 100, rows(*outbox), rows(*stored), letters or Letters())
    named = {
        kind: getattr(result, kind).tolist() for kind in ("missing", "extra", "differing", "repeated", "ambiguous")
    }
    return {kind: ids for kind, ids in named.items() if ids}


@pytest.mark.parametrize(
    ("outbox", "stored", "expected"),
    [
        ([(1, 10, 5)], [(1, 10, 5)], {}),
        ([(1, 20, 5)], [(1, 10, 5)], {"missing": [1]}),
        ([(1, 20, 6)], [(1, 10, 5), (1, 20, 6)], {}),
        ([(1, 10, 6)], [(1, 10, 5)], {"differing": [1]}),
        ([(1, 10, 5)], [(1, 10, 5), (1, 10, 5)], {"repeated": [1]}),
        ([(1, 10, 5)], [(1, 10, 5), (2, 11, 5)], {"extra": [2]}),
        ([(1, None, 5)], [(1, 77, 5)], {}),
        ([(1, None, 6)], [(1, 77, 5)], {"missing": [1]}),
        ([(1, None, 5)], [(1, 77, 5), (1, 78, 5)], {"repeated": [1]}),
        ([(1, None, 6)], [(1, 77, 5), (1, 78, 6)], {}),
        ([(7, 10, 5), (7, 11, 5)], [(7, 10, 5), (7, 11, 5)], {}),
        ([(7, 10, 5), (7, 10, 5)], [(7, 10, 5), (7, 10, 5)], {}),
        ([(7, 10, 5), (7, 11, 5)], [(7, 10, 5)], {"missing": [7], "ambiguous": [7]}),
        ([(1, 10, 5), (2, 11, 5)], [], {"missing": [1, 2]}),
        ([], [(1, 10, 5)], {"extra": [1]}),
    ],
)
def test_an_event_is_its_id_and_its_time_and_without_a_time_its_contents(
    outbox: list[Row], stored: list[Row], expected: dict[str, list[int]]
) -> None:
    assert found(outbox, stored) == expected


@pytest.mark.parametrize(
    ("row", "letters", "is_missing"),
    [
        ((1, 10, 5), Letters(frozenset({1}), frozenset(), frozenset({(1, 10)})), False),
        ((1, 20, 5), Letters(frozenset({1}), frozenset(), frozenset({(1, 10)})), True),
        ((1, 20, 5), Letters(frozenset({1}), frozenset({1})), False),
        ((1, None, 5), Letters(frozenset({1})), False),
        ((2, None, 5), Letters(frozenset({1})), True),
    ],
)
def test_a_dead_letter_is_the_event_of_its_id_and_time(row: Row, letters: Letters, *, is_missing: bool) -> None:
    assert found([row], [], letters) == ({"missing": [row[0]]} if is_missing else {})
    assert compare(0, 100, rows(row), rows(), letters).aside == (not is_missing)


def test_nothing_is_compared_with_nothing() -> None:
    assert found([], []) == {}
    assert len(Compared(0, 1, 0).missing) == 0


@pytest.mark.parametrize(
    ("kind", "unit"),
    [
        ("DateTime64(6, 'UTC')", 1),
        ("DateTime64(8)", 1),
        ("DateTime64(3)", 1000),
        ("DateTime64(0)", 1_000_000),
        ("String", None),
    ],
)
def test_times_are_compared_as_exactly_as_clickhouse_keeps_them(kind: str, unit: int | None) -> None:
    assert unit_us(kind) == unit


@pytest.mark.parametrize(
    ("printed", "unit", "number"),
    [
        ("2000-01-01 00:00:00+00", 1, 0),
        ("2000-01-01 00:00:00.000001+00", 1, 1),
        ("1999-12-31 23:59:59.999999", 1, -1),
        ("1970-01-01 00:00:01.5+00", 1000, 1500),
        ("1969-12-31 23:59:58.9999+00", 1000, -1000),
        ("infinity", 1, None),
        ("2300-01-01 00:00:00+00", 1, None),
        ("1899-12-31 23:59:59+00", 1, None),
        ("0044-03-15 00:00:00+00 BC", 1, None),
        ("", 1, None),
    ],
)
def test_the_time_of_a_dead_letter_is_read_as_postgres_prints_it(printed: str, unit: int, number: int | None) -> None:
    identity = Identity(Column("event_date_time", Oid.TIMESTAMPTZ), unit, (), (), "UTF8")
    assert identity.time_of(printed) == number


LEAST, GREATEST = -(1 << 63), (1 << 63) - 1
IDS = st.integers(LEAST, GREATEST)


@given(IDS, IDS, st.integers(1, 64))
def test_the_parts_of_a_range_are_adjacent_and_not_longer_than_it(one: int, other: int, parts: int) -> None:
    first, last = min(one, other), max(one, other)
    found = divided(first, last, parts)
    assert 0 < len(found) <= parts
    assert (found[0][0], found[-1][1]) == (first, last)
    assert all(start <= end for start, end in found)
    assert all(left[1] + 1 == right[0] for left, right in pairwise(found))
    assert first == last or parts == 1 or len(found) > 1


def test_the_whole_of_bigint_has_parts() -> None:
    assert divided(LEAST, GREATEST, 2) == [(LEAST, -1), (0, GREATEST)]
