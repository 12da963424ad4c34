"""Durations, sizes and moments are read alike wherever a person writes one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from outhaul.sink.quantities import age, duration_text, moment, seconds, size_bytes, size_text, spelled_bytes, spelled_s

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500ms", 0.5),
        ("60s", 60),
        ("2m", 120),
        ("12h", 43_200),
        ("7d", 604_800),
        ("1w", 604_800),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("0.2", 0.2),
        ("60", 60),
        ("0", 0),
    ],
)
def test_a_duration_is_read_in_seconds(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "h", "10x", "-2h", "2 h", "2h ", "2h!", "1h30", "-2", "7y", "inf", "nan"])
def test_what_is_not_a_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration: write 500ms, 60s") as caught:
        seconds(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["7", "0.5"])
def test_an_age_needs_a_unit(text: str) -> None:
    assert age("7d") == 604_800
    with pytest.raises(ValueError, match="has no unit: write 7d"):
        age(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24MiB", 24 << 20),
        ("50GB", 50 * 10**9),
        ("1.5GiB", 3 << 29),
        ("1kB", 1000),
        ("1KiB", 1024),
        ("1tib", 1 << 40),
        ("7B", 7),
        ("1024", 1024),
        ("0", 0),
    ],
)
def test_a_size_is_read_in_bytes(text: str, expected: int) -> None:
    assert size_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "MiB", "24M", "24 MiB", "-1", "-1GB", "0.5", "1.5B", "1iB", "inf"])
def test_what_is_not_a_size_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size: write 24MiB or 50GB") as caught:
        size_bytes(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", NOW - timedelta(hours=2)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T12:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31 14:00+02:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("999999999w", datetime.min.replace(tzinfo=UTC)),
    ],
)
def test_a_moment_is_a_time_or_an_age(text: str, expected: datetime) -> None:
    assert moment(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "soon", "2", "2026-13-01"])
def test_what_is_not_a_moment_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="is not a moment: write 2026-01-31"):
        moment(text, NOW)


@given(st.integers(0, 10**9))
@example(1_000_000)
def test_what_is_spelled_is_read_again(number: int) -> None:
    assert seconds(spelled_s(number)) == number
    assert size_bytes(spelled_bytes(number)) == number


@pytest.mark.parametrize(
    ("value", "text"), [(0.2, "200ms"), (60, "60s"), (100, "100s"), (300, "5m"), (5400, "90m"), (604_800, "7d")]
)
def test_a_duration_is_spelled_as_a_person_writes_it(value: float, text: str) -> None:
    assert spelled_s(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(24 << 20, "24MiB"), (50 * 10**9, "50GB"), (1000, "1kB"), (1024, "1KiB"), (7, "7"), (0, "0")]
)
def test_a_size_is_spelled_as_a_person_writes_it(value: int, text: str) -> None:
    assert spelled_bytes(value) == text


@pytest.mark.parametrize(
    ("value_s", "text"),
    [(5, "5 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7260, "2 h 1 min"), (2e5, "2 d")],
)
def test_a_duration_is_written_with_units(value_s: float, text: str) -> None:
    assert duration_text(value_s) == text


@pytest.mark.parametrize(("count", "text"), [(None, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e12, "2.0 TB")])
def test_a_size_is_written_with_units(count: float | None, text: str) -> None:
    assert size_text(count) == text
