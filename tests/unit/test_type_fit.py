from __future__ import annotations

import pyarrow as pa
import pytest

from outhaul.cdc_reader.capture.fit import check_fit
from outhaul.sink.errors import FatalError


def schema(kind: str) -> pa.Schema:
    return pa.schema([pa.field("n", pa.int64(), metadata={"clickhouse": kind})])


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        ("Nullable(Int64)", "Nullable(Int32)"),
        ("Nullable(Int64)", "LowCardinality(Nullable(Int16))"),
        ("Nullable(Float64)", "Nullable(Float32)"),
        ("Nullable(Decimal(12, 4))", "Nullable(Decimal(12, 2))"),
        ("Nullable(String)", "Nullable(Int32)"),
        ("Nullable(String)", "Nullable(DateTime64(6, 'UTC'))"),
    ],
)
def test_a_column_that_would_change_values_without_a_word_stops_with_what_to_type(kind: str, stored: str) -> None:
    with pytest.raises(FatalError) as error:
        check_fit("event_log", schema(kind), {"n": stored})
    assert f"ALTER TABLE event_log MODIFY COLUMN `n` {kind}" in error.value.todo


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        ("Nullable(Int64)", {}),
        ("Nullable(Int32)", {"n": "Nullable(Int64)"}),
        ("Nullable(Int64)", {"n": "Nullable(String)"}),
        ("Nullable(String)", {"n": "Int32"}),
        ("Nullable(String)", {"n": "LowCardinality(Nullable(String))"}),
        ("Nullable(Int64)", {"n": "UInt64"}),
        ("Nullable(DateTime64(6, 'UTC'))", {"n": "DateTime"}),
    ],
)
def test_what_fits_or_is_refused_by_clickhouse_itself_goes_on(kind: str, stored: dict[str, str]) -> None:
    check_fit("event_log", schema(kind), stored)
