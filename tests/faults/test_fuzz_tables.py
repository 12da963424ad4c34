"""Outboxes of every kind: ClickHouse has what was inserted, or outhaul has refused the table and said why."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.faults import fuzz_tables as fuzz
from tests.faults.fuzz_outbox import plan

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = 20


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fuzz.Bench]:
    made = fuzz.Bench(tmp_path_factory.mktemp("tables"))
    yield made
    made.close()


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_outboxes_arrive_whole_or_are_refused_with_a_reason(bench: fuzz.Bench) -> None:
    found = fuzz.run(20, SEED, bench)
    assert found.failures == []
    assert found.tables == 20
    assert found.events > 500
    assert "no reason" not in found.refused
    assert found.refused.total() < 10, found.refused


def test_a_plan_comes_back_by_its_number() -> None:
    assert plan(7, 3) == plan(7, 3)
    assert plan(7, 3) != plan(7, 4)


def test_the_plans_have_every_trait() -> None:
    traits: Counter[str] = Counter()
    for number in range(300):
        traits.update(plan(1, number).traits)
    assert {"rls", "inherits", "generated", "prepared", "unlogged", "ids again", "partitioned by list"} <= traits.keys()


EVENT = ({"id": "1", "note": "é", "n": None, "processed": "f"}, {"id": "bigint", "note": "text", "n": "integer"})
STORED = {"id": ("Int64", "1"), "note": ("Nullable(String)", "C3A9"), "n": ("Nullable(Int32)", None)}


def test_a_difference_is_found() -> None:
    assert fuzz.differences([EVENT], [STORED], [], set()) == ""
    assert "event 1 is missing" in fuzz.differences([EVENT], [], [], set())
    assert "twice: ['1']" in fuzz.differences([EVENT], [STORED, STORED], [], set())
    assert "column note" in fuzz.differences([EVENT], [STORED | {"note": ("Nullable(String)", "65")}], [], set())
    assert "column n " in fuzz.differences([EVENT], [STORED | {"n": ("Nullable(Int32)", "0")}], [], set())
    letter = {"id": "1", "note": "é", "n": None}
    assert fuzz.differences([EVENT], [], [letter], set()) == ""
    assert "dead letters" in fuzz.differences([EVENT], [STORED], [letter], set())
    assert "event 1 is missing" in fuzz.differences([EVENT], [], [letter | {"note": "e"}], set())


@pytest.mark.parametrize(
    ("text", "other", "of", "kind", "cell"),
    [
        ("t", "f", "boolean", "Nullable(Bool)", "true"),
        ("1e+300", "1e+30", "double precision", "Float64", "1e300"),
        ("NaN", "0", "real", "Nullable(Float32)", "nan"),
        (
            "2024-01-01 00:00:00.5+00",
            "2024-01-01 00:00:00+00",
            "timestamptz",
            "DateTime64(6)",
            "2024-01-01 00:00:00.500000",
        ),
        ("2024-01-01 00:00:00", "infinity", "timestamp", "Nullable(DateTime64(6))", "2024-01-01 00:00:00.000000"),
        ("1.50", "NaN", "numeric", "Nullable(Decimal(12, 2))", "1.5"),
        ("\\x00ff", "\\x00", "bytea", "Nullable(String)", "00FF"),
        ("2024-01-01", "2024-01-02", "date", "Nullable(Date32)", "2024-01-01"),
    ],
)
def test_values_are_compared_as_values(text: str, other: str, of: str, kind: str, cell: str) -> None:
    assert fuzz.same(text, of, kind, cell)
    assert not fuzz.same(other, of, kind, cell)
