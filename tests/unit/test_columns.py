from __future__ import annotations

import json
import math
import struct
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outhaul.cdc_reader.capture.cells import Cells
from outhaul.cdc_reader.capture.column_types import ELEMENTS, Oid, column_type
from outhaul.cdc_reader.capture.columns import Rows, build, decode_rows
from outhaul.cdc_reader.capture.frame import split
from outhaul.cdc_reader.capture.pg_text import printed
from outhaul.cdc_reader.capture.pg_text_by_type import PRINTERS
from outhaul.cdc_reader.capture.pgoutput_messages import END_TIMESTAMP, MIN_TIMESTAMP, Column, Relation
from outhaul.cdc_reader.postgres.errors import UnsupportedBinary
from outhaul.sink.errors import FatalError, FrameError
from tests.unit import pgoutput_frames as pg

_DAY_US = 86_400_000_000
_DATE_INFINITIES = [2**31 - 1, -(2**31)]
_TIME_INFINITIES = [2**63 - 1, -(2**63)]
_TEXTS = st.binary(max_size=30)
_TIMES = st.one_of(
    st.integers(MIN_TIMESTAMP, END_TIMESTAMP - 1),
    st.integers(-4_000_000_000_000_000, 10_000_000_000_000_000),
    st.integers(-200_000, 200_000).map(lambda days: days * _DAY_US),
    st.sampled_from([*_TIME_INFINITIES, 0, -1]),
)
_INT8 = st.integers(-(2**63), 2**63 - 1)
_CLOCK = st.integers(0, _DAY_US)
_ADDRESSES = st.ip_addresses().map(str) | st.tuples(st.ip_addresses(v=4), st.integers(0, 32)).map(
    "{0[0]}/{0[1]}".format
)
VALUES: dict[Oid, st.SearchStrategy[Any]] = {
    Oid.BOOL: st.booleans(),
    Oid.BYTEA: _TEXTS,
    Oid.CHAR: st.binary(min_size=1, max_size=1),
    Oid.NAME: _TEXTS,
    Oid.INT8: st.integers(-(2**63), 2**63 - 1),
    Oid.INT2: st.integers(-(2**15), 2**15 - 1),
    Oid.INT4: st.integers(-(2**31), 2**31 - 1),
    Oid.TEXT: _TEXTS,
    Oid.OID: st.integers(0, 2**32 - 1),
    Oid.JSON: _TEXTS,
    Oid.FLOAT4: st.floats(width=32),
    Oid.FLOAT8: st.floats(),
    Oid.BPCHAR: _TEXTS,
    Oid.VARCHAR: _TEXTS,
    Oid.DATE: st.one_of(
        st.integers(-2_451_545, 2_145_031_948), st.integers(-40_000, 120_000), st.sampled_from(_DATE_INFINITIES)
    ),
    Oid.TIMESTAMP: _TIMES,
    Oid.TIMESTAMPTZ: _TIMES,
    Oid.UUID: st.uuids(),
    Oid.JSONB: _TEXTS,
    Oid.NUMERIC: st.decimals() | st.decimals(-(10**8), 10**8, places=2),
    Oid.TIME: _CLOCK,
    Oid.TIMETZ: st.tuples(_CLOCK, st.integers(-57_599, 57_599)),
    Oid.INTERVAL: st.tuples(_INT8, st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1)),
    Oid.INET: _ADDRESSES,
    Oid.CIDR: _ADDRESSES,
    Oid.MACADDR: st.binary(min_size=6, max_size=6),
    Oid.MACADDR8: st.binary(min_size=8, max_size=8),
    Oid.BIT: st.text("01", max_size=20),
    Oid.VARBIT: st.text("01", max_size=20),
}


def _arrays(oid: Oid) -> st.SearchStrategy[bytes]:
    raw = VALUES[ELEMENTS[oid]].map(lambda value: pg.binary(ELEMENTS[oid], value))
    return st.lists(st.none() | raw, max_size=4).map(lambda elements: pg.array(ELEMENTS[oid], elements))


VALUES |= {oid: _arrays(oid) for oid in ELEMENTS}


def rows_of(relation: Relation, messages: list[bytes]) -> Rows:
    return decode_rows(split(messages), np.arange(len(messages)), relation)


def one(oid: int, raw: bytes | None, *, binary: bool = True) -> Any:
    """Decode a single value of a type; refused or an error, or the value."""
    relation = Relation(5, "public", "t", "d", (Column("c", oid),))
    rows = rows_of(relation, [pg.raw_insert([raw], 5, b"b" if binary else b"t")])
    rows.columns.validate(full=True)
    return rows.refused_rows[0].row_json if rows.refused[0] else rows.columns.column(0)[0].as_py()


@given(st.data())
def test_text_form_gives_what_binary_form_gives(data: st.DataObject) -> None:
    relation = pg.everything()
    values = data.draw(
        st.lists(st.tuples(*[st.none() | VALUES[oid] for oid in Oid]), min_size=1, max_size=5), label="rows"
    )
    raw = [
        [None if value is None else pg.binary(oid, value) for oid, value in zip(Oid, row, strict=True)]
        for row in values
    ]
    texts = [
        [None if value is None else printed(value, oid) for oid, value in zip(Oid, row, strict=True)] for row in raw
    ]
    left = rows_of(relation, [pg.raw_insert(row, relation.oid) for row in raw])
    right = rows_of(relation, [pg.raw_insert(row, relation.oid, b"t") for row in texts])
    left.columns.validate(full=True)
    right.columns.validate(full=True)
    assert pg.same(left.columns, right.columns)
    assert left.refused.tolist() == right.refused.tolist()
    assert left.refused_rows == right.refused_rows


@pytest.mark.parametrize(
    ("oid", "value", "expected"),
    [
        (Oid.BOOL, True, True),
        (Oid.BOOL, False, False),
        (Oid.INT2, -(2**15), -(2**15)),
        (Oid.INT4, 2**31 - 1, 2**31 - 1),
        (Oid.INT8, -(2**63), -(2**63)),
        (Oid.OID, 2**32 - 1, 2**32 - 1),
        (Oid.FLOAT4, 0.1, struct.unpack(">f", struct.pack(">f", 0.1))[0]),
        (Oid.FLOAT8, math.inf, math.inf),
        (Oid.TEXT, b"", b""),
        (Oid.TEXT, "é\N{GRINNING FACE}e\u0301".encode(), "é\N{GRINNING FACE}e\u0301".encode()),
        (Oid.VARCHAR, b"\xff\xfe", b"\xff\xfe"),
        (Oid.BPCHAR, b"a  ", b"a  "),
        (Oid.BYTEA, b"\0\1", b"\0\1"),
        (Oid.CHAR, b"\0", b""),
        (Oid.CHAR, b"\x80", b"\\200"),
        (Oid.JSONB, b"{}", b"{}"),
        (Oid.UUID, "0f0e0d0c-0b0a-0908-0706-050403020100", b"0f0e0d0c-0b0a-0908-0706-050403020100"),
        (Oid.DATE, 0, date(2000, 1, 1)),
        (Oid.DATE, -36_524, date(1900, 1, 1)),
        (Oid.DATE, 109_572, date(2299, 12, 31)),
        (Oid.TIMESTAMP, 1, datetime(2000, 1, 1, 0, 0, 0, 1, UTC)),
        (Oid.TIMESTAMPTZ, -36_524 * _DAY_US, datetime(1900, 1, 1, tzinfo=UTC)),
        (Oid.TIMESTAMPTZ, 109_573 * _DAY_US - 1, datetime(2300, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)),
    ],
)
def test_a_value_comes_out_as_postgres_meant_it(oid: Oid, value: Any, expected: Any) -> None:
    raw = pg.binary(oid, value)
    assert one(oid, raw) == expected
    assert one(oid, printed(raw, oid), binary=False) == expected


@pytest.mark.parametrize(
    ("oid", "value", "text"),
    [
        (Oid.NUMERIC, "12345678901234567890.1230", "12345678901234567890.1230"),
        (Oid.NUMERIC, "-0.05", "-0.05"),
        (Oid.NUMERIC, "0.00", "0.00"),
        (Oid.NUMERIC, "-99999999999999.9999", "-99999999999999.9999"),
        (Oid.NUMERIC, "1e20", "100000000000000000000"),
        (Oid.NUMERIC, "1e-18", "0.000000000000000001"),
        (Oid.NUMERIC, "NaN", "NaN"),
        (Oid.NUMERIC, "-Infinity", "-Infinity"),
        (Oid.TIME, _DAY_US, "24:00:00"),
        (Oid.TIME, 1_500_000, "00:00:01.5"),
        (Oid.TIME, 36_000_000_000, "10:00:00"),
        (Oid.TIMETZ, (0, -19_800), "00:00:00+05:30"),
        (Oid.TIMETZ, (1, 3_601), "00:00:00.000001-01:00:01"),
        (Oid.INTERVAL, (-1_500_000, 3, 14), "P1Y2M3DT-1.5S"),
        (Oid.INTERVAL, (0, 0, 0), "PT0S"),
        (Oid.INTERVAL, (90_061_000_000, 0, -1), "P-1MT25H1M1S"),
        (Oid.INET, "10.0.0.1", "10.0.0.1"),
        (Oid.INET, "::ffff:10.0.0.0/104", "::ffff:10.0.0.0/104"),
        (Oid.INET, "2001:db8::1", "2001:db8::1"),
        (Oid.INET, "1:0:2:0:0:3:0:0", "1:0:2::3:0:0"),
        (Oid.CIDR, "10.0.0.1/32", "10.0.0.1/32"),
        (Oid.MACADDR, b"\x08\0+\1\2\3", "08:00:2b:01:02:03"),
        (Oid.VARBIT, "0101010101", "0101010101"),
        (Oid.INT4_ARRAY, pg.array(Oid.INT4, [b"\0\0\0\1", None]), "{1,NULL}"),
        (Oid.TEXT_ARRAY, pg.array(Oid.TEXT, [b"", b"null", b'a"\\', b"x y", b"z"]), '{"","null","a\\"\\\\","x y",z}'),
        (Oid.BOOL_ARRAY, pg.array(Oid.BOOL, [b"\0", b"\1"], (2, 5), (1, 1)), "[5:6][1:1]={{f},{t}}"),
    ],
)
def test_a_type_kept_as_text_is_printed_as_postgres_prints_it(oid: Oid, value: Any, text: str) -> None:
    raw = pg.binary(oid, value)
    assert one(oid, raw) == text.encode()
    assert printed(raw, oid) == text.encode()


def test_a_numeric_of_few_digits_is_a_decimal_and_nan_in_it_is_refused() -> None:
    priced = Relation(5, "public", "t", "d", (Column("price", Oid.NUMERIC, (12 << 16 | 2) + 4),))
    for binary, nan in ((True, pg.numeric(Decimal("NaN"))), (False, b"NaN")):
        price = pg.numeric(Decimal("-1.20")) if binary else b"-1.20"
        messages = [pg.raw_insert([value], 5, b"b" if binary else b"t") for value in (price, nan, None)]
        rows = rows_of(priced, messages)
        assert rows.columns.schema.field("price").metadata == {b"clickhouse": b"Nullable(Decimal(12, 2))"}
        assert rows.columns.column("price").to_pylist() == [b"-1.20", None, None]
        assert [(row.row, row.row_json, row.reason) for row in rows.refused_rows] == [
            (1, '{"price": "NaN"}', "price: NaN is outside what Decimal(12, 2) holds")
        ]


def _modifier(precision: int, scale: int) -> int:
    return (precision << 16 | (scale & 0x7FF)) + 4


@pytest.mark.parametrize(
    ("modifier", "clickhouse"),
    [
        (-1, "String"),
        (_modifier(18, 18), "Decimal(18, 18)"),
        (_modifier(1, 0), "Decimal(1, 0)"),
        (_modifier(19, 2), "String"),
        (_modifier(5, -2), "String"),
        (_modifier(3, 5), "String"),
    ],
)
def test_a_numeric_is_a_decimal_where_that_holds_every_digit(modifier: int, clickhouse: str) -> None:
    assert column_type(Oid.NUMERIC, modifier).clickhouse == clickhouse


@pytest.mark.parametrize("oid", [*PRINTERS, *ELEMENTS, Oid.UUID])
@settings(max_examples=10)
@given(st.data())
def test_every_prefix_and_extension_of_a_value_is_an_error(oid: Oid, data: st.DataObject) -> None:
    raw = pg.binary(oid, data.draw(VALUES[oid]))
    for length in [*range(len(raw)), len(raw) + 1]:
        with pytest.raises(FrameError):
            one(oid, (raw + b"\0")[:length])


def test_nan_and_negative_zero_are_kept() -> None:
    assert math.isnan(one(Oid.FLOAT8, pg.binary(Oid.FLOAT8, math.nan)))
    assert math.copysign(1, one(Oid.FLOAT8, pg.binary(Oid.FLOAT8, -0.0))) == -1
    assert math.copysign(1, one(Oid.FLOAT4, b"-0", binary=False)) == -1


@pytest.mark.parametrize(
    ("oid", "value", "text"),
    [
        (Oid.FLOAT8, 63536546142495136.0, "6.3536546142495136e+16"),
        (Oid.FLOAT8, 2.0**-1017, "7.120236347223045e-307"),
        (Oid.FLOAT8, 1e15, "1e+15"),
        (Oid.FLOAT8, 999999999999999.0, "999999999999999"),
        (Oid.FLOAT8, 0.0001, "0.0001"),
        (Oid.FLOAT8, -0.00001, "-1e-05"),
        (Oid.FLOAT8, 1.7976931348623157e308, "1.7976931348623157e+308"),
        (Oid.FLOAT8, 5e-324, "5e-324"),
        (Oid.FLOAT8, -0.0, "-0"),
        (Oid.FLOAT4, 1e6, "1e+06"),
        (Oid.FLOAT4, 999999.0, "999999"),
        (Oid.FLOAT4, 2.0**90, "1.2379401e+27"),
        (Oid.FLOAT4, 3.4028234663852886e38, "3.4028235e+38"),
        (Oid.FLOAT4, -math.inf, "-Infinity"),
    ],
)
def test_floats_are_printed_as_postgres_prints_them(oid: Oid, value: float, text: str) -> None:
    assert printed(pg.binary(oid, value), oid) == text.encode()


@pytest.mark.parametrize("oid", Oid)
@pytest.mark.parametrize("binary", [True, False])
def test_null_stays_null(oid: Oid, binary: bool) -> None:
    assert one(oid, None, binary=binary) is None


@pytest.mark.parametrize(
    ("oid", "value", "text"),
    [
        (Oid.DATE, 2**31 - 1, "infinity"),
        (Oid.DATE, -(2**31), "-infinity"),
        (Oid.DATE, -36_525, "1899-12-31"),
        (Oid.DATE, 109_573, "2300-01-01"),
        (Oid.DATE, -2_451_545, "4714-11-24 BC"),
        (Oid.DATE, 2_145_031_948, "5874897-12-31"),
        (Oid.TIMESTAMP, 2**63 - 1, "infinity"),
        (Oid.TIMESTAMP, -36_524 * _DAY_US - 1, "1899-12-31 23:59:59.999999"),
        (Oid.TIMESTAMPTZ, -(2**63), "-infinity"),
        (Oid.TIMESTAMPTZ, 109_573 * _DAY_US, "2300-01-01 00:00:00+00"),
        (Oid.TIMESTAMPTZ, MIN_TIMESTAMP, "4714-11-24 00:00:00+00 BC"),
        (Oid.TIMESTAMPTZ, END_TIMESTAMP - 1, "294276-12-31 23:59:59.999999+00"),
        (Oid.TIMESTAMPTZ, -730_485 * _DAY_US + 500_000, "0001-01-01 00:00:00.5+00 BC"),
    ],
)
def test_what_clickhouse_cannot_hold_is_refused_and_printed_whole(oid: Oid, value: Any, text: Any) -> None:
    raw = pg.binary(oid, value)
    assert json.loads(one(oid, raw)) == {"c": text}
    assert json.loads(one(oid, text.encode(), binary=False)) == {"c": text}


def test_a_refused_row_is_named_with_its_reason_and_all_its_columns() -> None:
    rows = rows_of(pg.EVENTS, [pg.event(1), pg.event(2, at_us=2**63 - 1, context='{"é": null}'.encode()), pg.event(3)])
    assert rows.refused.tolist() == [False, True, False]
    assert [tuple(row) for row in rows.refused_rows] == [
        (
            1,
            (
                '{"id": "2", "event_type": "order.placed", "event_date_time": "infinity", "environment": "production", '
                '"event_context": "{\\"é\\": null}", "metadata_version": "1"}'
            ),
            "event_date_time: infinity is outside what DateTime64(6, 'UTC') holds",
        )
    ]
    assert rows.columns.column("event_date_time").null_count == 1
    assert rows.columns.column("id").to_pylist() == [1, 2, 3]


def test_a_refused_row_that_is_not_utf8_can_be_read_back_whole() -> None:
    row = rows_of(pg.EVENTS, [pg.event(1, at_us=2**63 - 1, kind=b"\xff\xc3\xa9")]).refused_rows[0]
    assert row.row_json.encode()
    assert json.loads(row.row_json)["event_type"].encode("utf-8", "surrogateescape") == b"\xff\xc3\xa9"


@pytest.mark.parametrize(
    ("oid", "raw"),
    [
        (Oid.BOOL, b"\2"),
        (Oid.BOOL, b""),
        (Oid.INT8, bytes(7)),
        (Oid.INT8, bytes(9)),
        (Oid.INT2, b""),
        (Oid.UUID, bytes(15)),
        (Oid.UUID, bytes(36)),
        (Oid.JSONB, b""),
        (Oid.CHAR, b""),
        (Oid.CHAR, b"ab"),
        (Oid.DATE, struct.pack(">i", -2_451_546)),
        (Oid.DATE, struct.pack(">i", 2_145_031_949)),
        (Oid.TIMESTAMP, struct.pack(">q", MIN_TIMESTAMP - 1)),
        (Oid.TIMESTAMPTZ, struct.pack(">q", END_TIMESTAMP)),
        (Oid.TIME, struct.pack(">q", _DAY_US + 1)),
        (Oid.TIME, struct.pack(">q", -1)),
        (Oid.TIMETZ, struct.pack(">qi", 0, 57_600)),
        (Oid.TIMETZ, struct.pack(">qi", _DAY_US + 1, 0)),
        (Oid.NUMERIC, struct.pack(">hhHHh", 1, 0, 0, 0, 10_000)),
        (Oid.NUMERIC, struct.pack(">hhHHh", 1, 0, 0, 0, -1)),
        (Oid.NUMERIC, struct.pack(">hhHHh", 1, 0, 0x1000, 0, 1)),
        (Oid.NUMERIC, struct.pack(">hhHHh", 1, 20, 0, 0, 10_000)),
        (Oid.NUMERIC, struct.pack(">hhHH", 1, 0, 0, 0)),
        (Oid.NUMERIC, struct.pack(">hhHHh", -1, 0, 0, 0, 1)),
        (Oid.NUMERIC, struct.pack(">hhHH", 0, 0, 0, 0x4000)),
        (Oid.INET, b"\2\x21\0\4" + bytes(4)),
        (Oid.INET, b"\2\x20\1\4" + bytes(4)),
        (Oid.INET, b"\4\x20\0\4" + bytes(4)),
        (Oid.CIDR, b"\3\x20\1\4" + bytes(4)),
        (Oid.BIT, struct.pack(">ib", 9, 0)),
        (Oid.VARBIT, struct.pack(">i", -1)),
        (Oid.INT4_ARRAY, pg.array(Oid.INT8, [bytes(8)])),
        (Oid.INT4_ARRAY, pg.array(Oid.INT4, [bytes(8)])),
        (Oid.BOOL_ARRAY, pg.array(Oid.BOOL, [b"\2"])),
        (Oid.INT4_ARRAY, pg.array(Oid.INT4, [bytes(4)], (2, 1))),
        (Oid.INT4_ARRAY, pg.array(Oid.INT4, [bytes(4)], (2**31 - 1, 1), (2**31 - 1, 1))),
        (Oid.INT4_ARRAY, pg.array(Oid.INT4, [], (0, 1))),
        (Oid.INT4_ARRAY, pg.array(Oid.INT4, [bytes(4)], *[(1, 1)] * 7)),
    ],
)
def test_a_binary_value_that_its_type_does_not_have_is_an_error(oid: Oid, raw: bytes) -> None:
    with pytest.raises(FrameError):
        one(oid, raw)


@pytest.mark.parametrize(
    ("oid", "text"),
    [
        (Oid.BOOL, b"true"),
        (Oid.BOOL, b"T"),
        (Oid.BOOL, b""),
        (Oid.INT2, b"32768"),
        (Oid.INT4, b"0x10"),
        (Oid.INT4, b"01"),
        (Oid.INT8, b"-0"),
        (Oid.INT8, b""),
        (Oid.INT8, b"\xff"),
        (Oid.OID, b"-1"),
        (Oid.FLOAT8, b"one"),
        (Oid.FLOAT4, b""),
        (Oid.BYTEA, b""),
        (Oid.BYTEA, b"\\x1"),
        (Oid.BYTEA, b"\\x1G"),
        (Oid.BYTEA, b"\\001"),
        (Oid.UUID, b"0f0e0d0c-0b0a-0908-0706-05040302010G"),
        (Oid.UUID, b"0f0e0d0c00b0a-0908-0706-050403020100"),
        (Oid.UUID, b"0f0e0d0c"),
        (Oid.DATE, b""),
        (Oid.DATE, b"01/02/2000"),
        (Oid.DATE, b"2000-13-01"),
        (Oid.DATE, b"2000-01-01 00:00:00"),
        (Oid.DATE, b"infinity "),
        (Oid.TIMESTAMP, b"2000-01-01"),
        (Oid.TIMESTAMP, b"2000-01-01 24:00:00"),
        (Oid.TIMESTAMP, b"2000-01-01 00:00:00+00"),
        (Oid.TIMESTAMP, b"Sat Jan 01 00:00:00 2000"),
        (Oid.TIMESTAMPTZ, b"2000-01-01 00:00:00"),
        (Oid.TIMESTAMPTZ, b"2000-01-01 00:00:00+02"),
        (Oid.TIMESTAMPTZ, b"2000-01-01 00:00:00+00:30"),
        (Oid.TIMESTAMPTZ, b"10000-01-01 00:00:00+02"),
    ],
)
def test_a_text_value_that_is_not_printed_as_asked_is_an_error(oid: Oid, text: Any) -> None:
    with pytest.raises(FrameError):
        one(oid, text, binary=False)


def test_a_type_without_a_known_binary_form_asks_for_text() -> None:
    money = 790
    with pytest.raises(UnsupportedBinary, match=r"column c \(type oid 790\)"):
        one(money, b"123")
    assert one(money, b"$123.40", binary=False) == b"$123.40"
    assert column_type(money).clickhouse == "String"


@given(st.data())
def test_values_of_one_column_may_come_in_both_forms(data: st.DataObject) -> None:
    oid = data.draw(st.sampled_from(list(Oid)))
    drawn = st.tuples(st.none() | VALUES[oid], st.booleans())
    values = [
        (None if value is None else pg.binary(oid, value), as_text)
        for value, as_text in data.draw(st.lists(drawn, min_size=1, max_size=8))
    ]
    relation = Relation(5, "public", "t", "d", (Column("c", oid), Column("n", Oid.INT4)))
    number = struct.pack(">i", 7)
    binary = rows_of(relation, [pg.raw_insert([raw, number], 5) for raw, _ in values])
    mixed = rows_of(relation, [_in_both_forms(raw, number, oid, as_text=as_text) for raw, as_text in values])
    mixed.columns.validate(full=True)
    assert pg.same(binary.columns, mixed.columns)
    assert binary.refused.tolist() == mixed.refused.tolist()
    assert binary.refused_rows == mixed.refused_rows


def _in_both_forms(raw: bytes | None, number: bytes, oid: int, *, as_text: bool) -> bytes:
    """Build a row of two values, of which the first may be in text form."""
    if raw is None or not as_text:
        return pg.raw_insert([raw, number], 5)
    text = printed(raw, oid)
    first = b"t" + struct.pack(">i", len(text)) + text
    return pg.data(struct.pack(">cIch", b"I", 5, b"N", 2) + first + b"b" + struct.pack(">i", 4) + number)


def test_a_type_without_a_send_function_is_text_in_a_binary_stream() -> None:
    aclitem = 1033
    relation = Relation(5, "public", "t", "d", (Column("acl", aclitem), Column("n", Oid.INT4)))
    number = struct.pack(">i", 7)
    rows = rows_of(
        relation, [_in_both_forms(b"=r/me", number, aclitem, as_text=True), pg.raw_insert([None, number], 5)]
    )
    assert rows.columns.to_pylist() == [{"acl": b"=r/me", "n": 7}, {"acl": None, "n": 7}]


@pytest.mark.parametrize(
    ("oid", "raw"), [(Oid.JSONB, b"\2{}"), (Oid.JSONB_ARRAY, pg.array(Oid.JSONB, [b"\1{}", b"\2{}"]))]
)
def test_a_newer_binary_form_asks_for_text(oid: Oid, raw: bytes) -> None:
    with pytest.raises(UnsupportedBinary, match="version"):
        one(oid, raw)


@pytest.mark.parametrize("oid", [Oid.BOOL, 790])
def test_an_ignored_column_may_have_any_type(oid: Oid) -> None:
    relation = Relation(5, "public", "t", "d", (Column("id", Oid.INT8), Column("processed", oid)))
    rows = rows_of(relation, [pg.raw_insert([bytes(8), b"whatever"], 5)])
    assert rows.columns.to_pylist() == [{"id": 0}]


def test_a_table_with_nothing_to_capture_is_fatal() -> None:
    relation = Relation(5, "public", "t", "d", (Column("processed", Oid.BOOL),))
    with pytest.raises(FatalError, match="no columns"):
        rows_of(relation, [pg.raw_insert([b"\1"], 5)])


def test_fields_name_their_clickhouse_types() -> None:
    schema = rows_of(pg.EVENTS, [pg.event(1)]).columns.schema
    assert {field.name: field.metadata[b"clickhouse"].decode() for field in schema} == {
        "id": "Int64",
        "event_type": "String",
        "event_date_time": "Nullable(DateTime64(6, 'UTC'))",
        "environment": "String",
        "event_context": "String",
        "metadata_version": "Nullable(Int64)",
    }


@pytest.mark.parametrize("kind", [b"u", b"x"])
def test_a_value_of_a_kind_that_an_insert_cannot_have_is_an_error(kind: bytes) -> None:
    cell = kind if kind == b"u" else kind + struct.pack(">i", 1) + b"a"
    relation = Relation(5, "public", "t", "d", (Column("c", Oid.TEXT),))
    with pytest.raises(FrameError):
        rows_of(relation, [pg.data(b"I" + struct.pack(">Ich", 5, b"N", 1) + cell)])


@pytest.mark.parametrize("length", [-1, -(2**31), 2, 2**31 - 1])
def test_a_length_that_does_not_fit_is_an_error(length: int) -> None:
    relation = Relation(5, "public", "t", "d", (Column("c", Oid.TEXT),))
    message = pg.data(b"I" + struct.pack(">Ichci", 5, b"N", 1, b"b", length) + b"a")
    with pytest.raises(FrameError):
        rows_of(relation, [message, pg.raw_insert([b"b"], 5)])


@pytest.mark.parametrize("where", [0, 1, 2])
def test_every_prefix_and_extension_of_a_row_is_an_error_wherever_it_stands(where: int) -> None:
    row = pg.event(1)
    for length in [*range(26, len(row)), len(row) + 1]:
        messages = [pg.event(2), pg.event(3)]
        messages.insert(where, (row + b"\0")[:length])
        with pytest.raises(FrameError):
            rows_of(pg.EVENTS, messages)


def test_arrays_hold_only_their_own_bytes() -> None:
    rows = rows_of(pg.EVENTS, [pg.event(n, context=b"x" * 1000) for n in range(100)])
    assert rows.columns.nbytes < 100 * 1100
    kinds = rows.columns.column("event_type")
    assert kinds.buffers()[2].size <= 100 * len(b"order.placed") + 64


def test_no_rows_make_an_empty_batch() -> None:
    nothing = Cells(bytes(16), np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.bool_), dense=True)
    rows = build(pg.everything().columns, [nothing] * len(Oid))
    assert rows.columns.num_rows == 0
    assert isinstance(rows.columns, pa.RecordBatch)
