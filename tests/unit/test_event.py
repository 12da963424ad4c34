"""Events are checked at the border: what is good arrives equal, what is bad raises one error and says where."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outhaul import Event, EventError, Outbox
from outhaul.context import MAX_CONTEXT_BYTES, MAX_DEPTH, context_json

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)
ANYTHING = st.recursive(
    JSON | st.floats() | st.text() | st.binary() | st.datetimes() | st.decimals() | st.complex_numbers(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.sets(st.integers() | st.text())
    ),
    max_leaves=10,
)


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@dataclass
class Point:
    x: int
    y: Decimal


class Model(pydantic.BaseModel):
    at: datetime
    colour: Colour


def event(**given: Any) -> Event:
    values: dict[str, Any] = {"type": "t", "context": {}, "environment": "e"}
    return Event(**values | given)


@given(st.dictionaries(TEXT, JSON))
def test_what_json_holds_arrives_equal(context: dict[str, Any]) -> None:
    assert exactly(context_json(context)) == exactly(json.dumps(context))


def exactly(text: str) -> Any:
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


@given(st.dictionaries(st.text() | st.integers(), ANYTHING) | ANYTHING)
def test_whatever_an_app_says_is_json_for_jsonb_or_one_error(context: Any) -> None:
    try:
        text = context_json(context)
    except EventError:
        return
    json.loads(text, parse_constant=pytest.fail)
    assert "\0" not in text
    assert "\\u0000" not in text.replace("\\\\", "")
    text.encode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("1.10"), "1.10"),
        (Decimal("1E+3"), "1000"),
        (2**200, str(2**200)),
        (1e22, "10000000000000000000000"),
        (0.1, "0.1"),
        (-0.0, "-0.0"),
        (True, "true"),
        (Colour.RED, '"red"'),
        (Level.HIGH, "3"),
        (datetime(2026, 1, 2, 3, 4, 5, 6, timezone(timedelta(hours=1))), '"2026-01-02T03:04:05.000006+01:00"'),
        (date(2026, 1, 2), '"2026-01-02"'),
        (time(1, 2, 3), '"01:02:03"'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (PurePosixPath("/a/b"), '"/a/b"'),
        ({3, 1, 2}, "[1,2,3]"),
        ((1, "é"), '[1,"é"]'),
        (Point(1, Decimal("2.50")), '{"x":1,"y":2.50}'),
        (Model(at=datetime(2026, 1, 2, tzinfo=UTC), colour=Colour.RED), '{"at":"2026-01-02T00:00:00Z","colour":"red"}'),
    ],
)
def test_an_app_s_own_types_become_what_people_expect(value: object, text: str) -> None:
    assert context_json({"v": value}) == f'{{"v":{text}}}'


def test_a_context_may_be_a_dataclass_or_a_model() -> None:
    assert context_json(Point(1, Decimal(2))) == '{"x":1,"y":2}'
    assert json.loads(context_json(Model(at=datetime(2026, 1, 2, tzinfo=UTC), colour=Colour.RED)))["colour"] == "red"


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"type": ""}, "type must be a string of 1 to 255"),
        ({"type": "x" * 256}, "type must be"),
        ({"type": 1}, "type must be"),
        ({"type": "a\0"}, "type must be"),
        ({"type": "\ud800"}, "type must be"),
        ({"environment": "x" * 256}, "environment must be"),
        ({"key": ""}, "key must be"),
        ({"at": datetime(2026, 1, 1)}, "at must be timezone-aware"),  # noqa: DTZ001 - that is the point
        ({"at": "2026-01-01"}, "at must be a datetime"),
        ({"at": datetime(1800, 1, 1, tzinfo=UTC)}, "1900 to 2299"),
        ({"version": True}, "version must be an int"),
        ({"version": 1.0}, "version must be an int"),
        ({"version": 1 << 63}, "version must be an int"),
        ({"version": "1"}, "version must be an int"),
        ({"traceparent": "00-1-2-3"}, "traceparent must be like"),
        ({"context": []}, "context must be a mapping"),
        ({"context": None}, "context must be a mapping"),
        ({"context": {1: 2}}, "keys must be str"),
        ({"context": {"a": {"b": [0, math.nan]}}}, r"context\['a'\]\['b'\]\[1\] is NaN"),
        ({"context": {"a": math.inf}}, "Infinity"),
        ({"context": {"a": Decimal("NaN")}}, "NaN"),
        ({"context": {"a": "\0"}}, "NUL"),
        ({"context": {"a\0": 1}}, "NUL"),
        ({"context": {"a": "\udc00"}}, "surrogate"),
        ({"context": {"a": b"x"}}, "decode it"),
        ({"context": {"a": datetime(2026, 1, 1)}}, "no time zone"),  # noqa: DTZ001
        ({"context": {"a": object()}}, "object, which JSON cannot hold"),
        ({"context": {"a": "x" * (2 << 20)}}, "larger than 1,048,576 bytes"),
        ({"context": {"a": 10**140_000}}, "digits"),
        ({"context": {"a": 1e308 * 10}}, "JSON cannot hold"),
    ],
)
def test_a_bad_event_raises_one_error_that_says_which_part_and_why(bad: dict[str, Any], why: str) -> None:
    with pytest.raises(EventError, match=why):
        event(**bad)


def test_the_bounds_are_inclusive() -> None:
    event(type="é" * 255, version=-(1 << 63), at=datetime(2299, 12, 31, 23, 59, 59, 999_999, UTC))
    assert len(context_json({"a": "x" * (MAX_CONTEXT_BYTES - 8)}).encode()) == MAX_CONTEXT_BYTES
    nested: Any = 1
    for _ in range(MAX_DEPTH):
        nested = [nested]
    with pytest.raises(EventError, match="nested deeper"):
        context_json({"a": [nested]})
    itself: dict[str, Any] = {}
    itself["me"] = itself
    with pytest.raises(EventError, match="holds itself"):
        context_json(itself)


def test_what_happens_to_a_context_later_changes_nothing() -> None:
    context = {"n": 1}
    made = event(context=context)
    context["n"] = 2
    assert made.context_json == '{"n":1}'


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"table": "a.b.c"}, "table must be"),
        ({"table": ""}, "table must be"),
        ({"environment": ""}, "environment must be"),
        ({"via": "kafka"}, "via must be"),
        ({"publication": ""}, "publication must be"),
    ],
)
def test_an_outbox_that_cannot_be_is_refused_when_it_is_made(bad: dict[str, Any], why: str) -> None:
    with pytest.raises(EventError, match=why):
        Outbox(**bad)
