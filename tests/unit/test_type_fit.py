from __future__ import annotations

import pyarrow as pa
import pytest

from outhaul.cdc_reader.capture.type_fit import Fit, check_fit, fit_of
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
def test_a_column_that_would_silently_change_values_stops_with_what_to_type(kind: str, stored: str) -> None:
    with pytest.raises(FatalError) as error:
        check_fit("event_log", schema(kind), {"n": stored})
    assert f"ALTER TABLE `event_log` MODIFY COLUMN `n` {kind}" in error.value.todo


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


@pytest.mark.parametrize(
    ("source", "target", "fit"),
    [
        ("Int64", "Nullable(Int64)", Fit.WHOLE),
        ("Int64", "LowCardinality(Nullable(Int64))", Fit.WHOLE),
        ("Int64", "Int128", Fit.WHOLE),
        ("Int64", "Int32", Fit.CHANGED),
        ("Int64", "UInt64", Fit.PARTLY),
        ("Int64", "UInt32", Fit.CHANGED),
        ("Int64", "Float64", Fit.CHANGED),
        ("Int32", "Float64", Fit.WHOLE),
        ("Int32", "DateTime('UTC')", Fit.CHANGED),
        ("UInt32", "Int32", Fit.CHANGED),
        ("UInt32", "Int64", Fit.WHOLE),
        ("Int64", "String", Fit.WHOLE),
        ("Bool", "UInt8", Fit.WHOLE),
        ("Bool", "Bool", Fit.WHOLE),
        ("Float64", "Float32", Fit.CHANGED),
        ("Float32", "Float64", Fit.WHOLE),
        ("DateTime64(6, 'UTC')", "DateTime64(6, 'Europe/Berlin')", Fit.WHOLE),
        ("DateTime64(6, 'UTC')", "DateTime64(3)", Fit.PARTLY),
        ("DateTime64(6, 'UTC')", "DateTime64(9, 'UTC')", Fit.PARTLY),
        ("DateTime64(6, 'UTC')", "DateTime('UTC')", Fit.CHANGED),
        ("DateTime64(6, 'UTC')", "Date32", Fit.CHANGED),
        ("Date32", "Date", Fit.CHANGED),
        ("Date32", "DateTime64(6, 'UTC')", Fit.WHOLE),
        ("UUID", "String", Fit.WHOLE),
        ("String", "JSON(max_dynamic_paths=8)", Fit.PARTLY),
        ("String", "Decimal(18, 4)", Fit.PARTLY),
        ("String", "Point", Fit.PARTLY),
        ("Decimal(12, 2)", "Decimal(12, 2)", Fit.WHOLE),
        ("Decimal(12, 2)", "Decimal(18, 4)", Fit.WHOLE),
        ("Decimal(12, 2)", "String", Fit.WHOLE),
        ("Decimal(12, 4)", "Decimal(12, 2)", Fit.CHANGED),
        ("Decimal(12, 2)", "Decimal(9, 2)", Fit.PARTLY),
        ("Decimal(12, 2)", "Float64", Fit.PARTLY),
    ],
)
def test_a_type_takes_another_where_no_value_is_changed(source: str, target: str, fit: Fit) -> None:
    found, trouble = fit_of(source, target)
    assert found is fit
    assert bool(trouble) is (fit is not Fit.WHOLE)
