"""Postgres itself says what each value is, in both forms of the stream; the decoder has to agree."""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outhaul.cdc_reader.capture.column_types import ELEMENTS, Oid
from outhaul.cdc_reader.capture.decode import Decoder
from outhaul.cdc_reader.capture.pg_text_by_type import PRINTERS
from outhaul.cdc_reader.postgres.errors import UnsupportedBinary
from outhaul.sink.errors import FrameError

if TYPE_CHECKING:
    import pyarrow as pa

    from tests.integration.postgres_oracle import Oracle

SQL_TYPES = {
    Oid.BOOL: "boolean",
    Oid.BYTEA: "bytea",
    Oid.CHAR: '"char"',
    Oid.NAME: "name",
    Oid.INT8: "bigint",
    Oid.INT2: "smallint",
    Oid.INT4: "integer",
    Oid.TEXT: "text",
    Oid.OID: "oid",
    Oid.JSON: "json",
    Oid.FLOAT4: "real",
    Oid.FLOAT8: "double precision",
    Oid.BPCHAR: "char(10)",
    Oid.VARCHAR: "varchar(40)",
    Oid.DATE: "date",
    Oid.TIMESTAMP: "timestamp",
    Oid.TIMESTAMPTZ: "timestamptz",
    Oid.UUID: "uuid",
    Oid.JSONB: "jsonb",
    Oid.NUMERIC: "numeric",
    Oid.TIME: "time",
    Oid.TIMETZ: "timetz",
    Oid.INTERVAL: "interval",
    Oid.INET: "inet",
    Oid.CIDR: "cidr",
    Oid.MACADDR: "macaddr",
    Oid.MACADDR8: "macaddr8",
    Oid.BIT: "bit(10)",
    Oid.VARBIT: "bit varying",
}
SQL_TYPES |= {oid: f"{SQL_TYPES[element]}[]" for oid, element in ELEMENTS.items()}
_MICROSECONDS = (
    "CASE WHEN {0} >= '1900-01-01' AND {0} < '2300-01-01' THEN (extract(epoch FROM {0}) * 1000000)::bigint END"
)
_SERVER_SAYS = {
    Oid.FLOAT4: "float8send({0})",
    Oid.FLOAT8: "float8send({0})",
    Oid.TEXT: "textsend({0})",
    Oid.VARCHAR: "varcharsend({0})",
    Oid.BPCHAR: "bpcharsend({0})",
    Oid.NAME: "namesend({0})",
    Oid.JSON: "json_send({0})",
    Oid.JSONB: "convert_to({0}::text, 'UTF8')",
    Oid.CHAR: "convert_to({0}::text, 'UTF8')",
    Oid.UUID: "convert_to({0}::text, 'UTF8')",
    Oid.DATE: "CASE WHEN {0} BETWEEN '1900-01-01' AND '2299-12-31' THEN {0} - DATE '1970-01-01' END",
    Oid.TIMESTAMP: _MICROSECONDS,
    Oid.TIMESTAMPTZ: _MICROSECONDS,
    Oid.INET: "convert_to(inet_out({0})::text, 'UTF8')",
    **dict.fromkeys([one for one in PRINTERS if one != Oid.INET] + list(ELEMENTS), "convert_to({0}::text, 'UTF8')"),
}
"""What the server is asked for each type: answers that can be compared without reading dates or floats from text."""


def _column(oid: Oid) -> str:
    return f"a_{oid.name.lower()}"


@pytest.fixture
def kinds(oracle: Oracle) -> Oracle:
    """A table with a column of every type; its last column has every row refused, and so printed whole."""
    columns = ", ".join(f"{_column(oid)} {kind}" for oid, kind in SQL_TYPES.items())
    oracle.run(
        f"CREATE TABLE kinds (id bigserial PRIMARY KEY, {columns}, always date DEFAULT 'infinity')",
        "ALTER TABLE kinds ALTER a_text SET STORAGE EXTERNAL",
    )
    oracle.publish("kinds")
    return oracle


def _assert_server_agrees(oracle: Oracle) -> None:
    """Compare every value that waits in the slot with what the server prints, and move on."""
    try:
        (segment,) = oracle.decode({"public.kinds": "kinds"}).segments
    finally:
        oracle.consume()
    first, last = segment.columns.column("id")[0], segment.columns.column("id")[-1]
    where = f"FROM kinds WHERE id BETWEEN {first} AND {last} ORDER BY id"
    for oid in Oid:
        asked = _SERVER_SAYS.get(oid, "{0}").format(_column(oid))
        server = [row[0] for row in oracle.conn.execute(f"SELECT {asked} {where}", binary=True)]
        assert _comparable(segment.columns.column(_column(oid)), oid) == server, oid
    assert [row.row for row in segment.refused_rows] == list(range(len(segment)))
    assert [json.loads(row.row_json) for row in segment.refused_rows] == oracle.printed(f"SELECT * {where}")


def _comparable(column: pa.Array, oid: Oid) -> list[Any]:
    match oid:
        case Oid.FLOAT4 | Oid.FLOAT8:
            return [None if value is None else struct.pack(">d", value) for value in column.to_pylist()]
        case Oid.DATE:
            return list(column.view("int32").to_pylist())
        case Oid.TIMESTAMP | Oid.TIMESTAMPTZ:
            return list(column.view("int64").to_pylist())
    return list(column.to_pylist())


_TIMES = [
    "infinity",
    "-infinity",
    "1900-01-01 00:00:00",
    "1899-12-31 23:59:59.999999",
    "2299-12-31 23:59:59.999999",
    "2300-01-01 00:00:00",
    "4714-11-24 00:00:00 BC",
    "0044-03-15 12:00:00.5 BC",
    "0001-12-31 23:59:59 BC",
    "0001-01-01 00:00:00",
    "9999-12-31 23:59:59.999999",
    "10000-01-01 00:00:00",
    "294276-12-31 23:59:59.999999",
    "2024-02-29 24:00:00",
    "2016-12-31 23:59:60",
    "1969-12-31 23:59:59.9",
    "2000-01-01 00:00:00.000001",
]
_FLOATS = ["NaN", "Infinity", "-Infinity", "-0", "0", "1e15", "1e14", "123456789012345", "1e-5", "1e-4", "5e-324"]
_REALS = ["1e6", "999999", "1e5", "1e-45", "3.4028235e38", "0.1", "16777217", "-1.17549435e-38", "NaN", "-0"]
_TEXTS = ["", " ", "a  ", "é", "\N{GRINNING FACE}", "e\u0301", "\u200b", "'\"\\", "\t\r\n", "\x01", "x" * 40]
SPECIAL: dict[Oid, list[Any]] = {
    Oid.BOOL: [True, False],
    Oid.BYTEA: [b"", b"\0", bytes(range(256)), b"\\x41", b"\xff" * 1_000_000],
    Oid.CHAR: ["", "a", " ", "\\", "\\377", "\\200", "\\001"],
    Oid.NAME: ["", "x" * 63, "é"],
    Oid.INT8: [-(2**63), 2**63 - 1, 0, -1],
    Oid.INT2: [-(2**15), 2**15 - 1, 0, -1],
    Oid.INT4: [-(2**31), 2**31 - 1, 0, -1],
    Oid.TEXT: [*_TEXTS, "\N{GRINNING FACE}" * 250_000, "x" * 1_000_000],
    Oid.OID: [0, 2**32 - 1],
    Oid.JSON: ['{"a":  1}', "null", '{"a": 1, "a": 2}', '"\\u0000"', "1e400"],
    Oid.FLOAT4: _REALS,
    Oid.FLOAT8: [*_FLOATS, "1.7976931348623157e308", "-2.2250738585072014e-308", "0.1", "1e300"],
    Oid.BPCHAR: _TEXTS[:10],
    Oid.VARCHAR: _TEXTS,
    Oid.DATE: [*_TIMES, "5874897-12-31"],
    Oid.TIMESTAMP: _TIMES,
    Oid.TIMESTAMPTZ: [*_TIMES, "2024-06-01 12:00:00+05:30", "1850-01-01 00:00:00-00:19:32"],
    Oid.UUID: ["00000000-0000-0000-0000-000000000000", "FFFFFFFF-ffff-ffff-ffff-ffffffffffff"],
    Oid.JSONB: [
        "{}",
        '{"b": [1.10, null, "é\\n"], "a": ""}',
        '""',
        "12345678901234567890.123456789",
        '"' + "y" * 1_000_000 + '"',
    ],
    Oid.NUMERIC: [
        *("NaN", "Infinity", "-Infinity", "0", "0.00", "-0.05", "1.10", "99999999999999.9999", "-1e-18", "1e-19"),
        *("123456789012345678", "9999999999999999999", "1e1000", "-1e-1000", "10000", "9999.9999", "1e131071"),
    ],
    Oid.TIME: ["00:00", "24:00", "23:59:59.999999", "12:00:00.5", "00:00:00.000001", "10:00:00"],
    Oid.TIMETZ: ["00:00+00", "24:00-15:59:59", "12:00:00.5+05:30", "23:59:59.999999+15:59"],
    Oid.INTERVAL: [
        *("0", "1 year", "-1 year -1 mon", "1 mon -3 days 04:05:06.7", "-04:05:06.000001", "2147483647:59:59.999999"),
        *("178000000 years", "0.000001 s", "1 day", "-1 day 1 min", "59.5 s", "2147483647 days"),
    ],
    Oid.INET: [
        *("10.0.0.1", "10.0.0.1/8", "0.0.0.0/0", "::", "::1", "::ffff:1.2.3.4", "::1.2.3.4", "::1.2.3.4/96"),
        *("2001:db8::1", "1:0:2:0:0:3:0:0", "1:0:0:2:0:0:3:4", "fe80::/10", "1:2:3:4:5:6:7:0", "0:1:2:3:4:5:6:7"),
    ],
    Oid.CIDR: ["10.0.0.0/8", "10.0.0.1", "0.0.0.0/0", "2001:db8::/32", "::1", "::ffff:0:0/96"],
    Oid.MACADDR: ["08:00:2b:01:02:03"],
    Oid.MACADDR8: ["08:00:2b:01:02:03:04:05"],
    Oid.BIT: ["0101010101", "1111111111"],
    Oid.VARBIT: ["", "1", "01010101", "010101010", "1" * 1000],
    Oid.BOOL_ARRAY: ["{}", "{t,NULL,f}", "[0:1]={t,f}"],
    Oid.INT2_ARRAY: ["{}", "{-32768,32767}"],
    Oid.INT4_ARRAY: ["{}", "{1}", "{{1,2},{3,NULL}}", "[-1:0][2:3]={{1,2},{3,4}}", "{{{{{{1}}}}}}"],
    Oid.INT8_ARRAY: ["{9223372036854775807,NULL}"],
    Oid.TEXT_ARRAY: ['{a,"b c","",NULL,"null","NuLl","\\"","\\\\","{","}",","," ",é,"a\tb","a\nb"}', "{{a},{b}}", "{}"],
    Oid.VARCHAR_ARRAY: ["{a,\u00a0,\u0085}"],
    Oid.FLOAT8_ARRAY: ["{NaN,-Infinity,0.1,1e300,-0}"],
    Oid.TIMESTAMP_ARRAY: ["{infinity,2026-01-01 00:00:00.5,0044-03-15 BC}"],
    Oid.DATE_ARRAY: ["{infinity,2026-01-01,0044-03-15 BC,10000-01-01}"],
    Oid.TIMESTAMPTZ_ARRAY: ["{-infinity,2026-01-01 00:00:00.5+05:30}"],
    Oid.NUMERIC_ARRAY: ["{NaN,1.10,-1e20}"],
    Oid.UUID_ARRAY: ["{7b2a1c1e-0000-4000-8000-00000000000a,NULL}"],
    Oid.JSONB_ARRAY: ['{"{\\"a\\": [1, \\"b\\"]}",null,"null"}', "{1}"],
}


def test_special_values_of_every_type_are_what_the_server_prints(kinds: Oracle) -> None:
    with kinds.conn.transaction():
        for oid, values in SPECIAL.items():
            cast = f"%s::{SQL_TYPES[oid]}"
            with kinds.conn.cursor() as cursor:
                cursor.executemany(
                    f"INSERT INTO kinds ({_column(oid)}) VALUES ({cast})",
                    [[value if isinstance(value, bytes) else str(value)] for value in values],
                )
        kinds.run("INSERT INTO kinds DEFAULT VALUES")
    _assert_server_agrees(kinds)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
).map(json.dumps)


def _text(size: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=size)


def _list(elements: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    def spelled(value: Any) -> str:
        return "NULL" if value is None else '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'

    return st.lists(st.none() | elements, max_size=4).map(lambda one: "{" + ",".join(map(spelled, one)) + "}")


_CLOCK = st.times().map(str)
_DAYS = st.one_of(st.integers(-37_000, 110_000), st.integers(-2_451_545, 106_751_982))
_RANDOM: dict[Oid, st.SearchStrategy[Any]] = {
    Oid.BOOL: st.booleans(),
    Oid.BYTEA: st.binary(max_size=40),
    Oid.CHAR: st.integers(1, 255).map(lambda byte: chr(byte) if byte < 128 else f"\\{byte:03o}"),
    Oid.NAME: _text(15),
    Oid.INT8: st.integers(-(2**63), 2**63 - 1),
    Oid.INT2: st.integers(-(2**15), 2**15 - 1),
    Oid.INT4: st.integers(-(2**31), 2**31 - 1),
    Oid.TEXT: _text(40),
    Oid.OID: st.integers(0, 2**32 - 1),
    Oid.JSON: _JSON,
    Oid.FLOAT4: st.floats(width=32).map(lambda value: repr(value) if math.isfinite(value) else str(value)),
    Oid.FLOAT8: st.floats().map(repr),
    Oid.BPCHAR: _text(10),
    Oid.VARCHAR: _text(40),
    Oid.DATE: st.one_of(st.integers(-37_000, 110_000), st.integers(-2_451_545, 2_145_031_948)),
    Oid.TIMESTAMP: st.tuples(_DAYS, st.integers(0, 86_399_999_999)),
    Oid.TIMESTAMPTZ: st.tuples(_DAYS, st.integers(0, 86_399_999_999)),
    Oid.UUID: st.uuids().map(str),
    Oid.JSONB: _JSON,
    Oid.NUMERIC: st.decimals(allow_infinity=False, allow_nan=False, places=3) | st.floats(allow_nan=False).map(repr),
    Oid.TIME: _CLOCK,
    Oid.TIMETZ: st.tuples(_CLOCK, st.integers(-959, 959)).map(
        lambda at: f"{at[0]}{'-' if at[1] < 0 else '+'}{abs(at[1]) // 60:02d}:{abs(at[1]) % 60:02d}"
    ),
    # Postgres 14 reads no number that exceeds 32 bits.
    Oid.INTERVAL: st.tuples(
        *[st.integers(1 - 2**31, 2**31 - 1)] * 3, st.integers(0, 59), st.integers(0, 59_999_999)
    ).map(lambda parts: f"{parts[0]} mons {parts[1]} days {parts[2]}:{parts[3]}:{parts[4] / 1e6:f}"),
    Oid.INET: st.ip_addresses().map(str)
    | st.tuples(st.ip_addresses(v=6), st.integers(0, 128)).map("{0[0]}/{0[1]}".format)
    | st.lists(st.sampled_from(["0", "1", "ffff"]), min_size=8, max_size=8).map(":".join),
    Oid.CIDR: st.ip_addresses().map(str),
    Oid.MACADDR: st.binary(min_size=6, max_size=6).map(bytes.hex),
    Oid.MACADDR8: st.binary(min_size=8, max_size=8).map(bytes.hex),
    Oid.BIT: st.text("01", min_size=10, max_size=10),
    Oid.VARBIT: st.text("01", max_size=40),
    Oid.BOOL_ARRAY: st.sampled_from(SPECIAL[Oid.BOOL_ARRAY]),
    Oid.INT2_ARRAY: _list(st.integers(-(2**15), 2**15 - 1)),
    Oid.INT4_ARRAY: _list(st.integers(-(2**31), 2**31 - 1)),
    Oid.TEXT_ARRAY: _list(_text(8)),
    Oid.VARCHAR_ARRAY: _list(_text(8)),
    Oid.INT8_ARRAY: _list(st.integers(-(2**63), 2**63 - 1)),
    Oid.FLOAT8_ARRAY: _list(st.floats()),
    Oid.TIMESTAMP_ARRAY: st.sampled_from(SPECIAL[Oid.TIMESTAMP_ARRAY]),
    Oid.DATE_ARRAY: st.sampled_from(SPECIAL[Oid.DATE_ARRAY]),
    Oid.TIMESTAMPTZ_ARRAY: st.sampled_from(SPECIAL[Oid.TIMESTAMPTZ_ARRAY]),
    Oid.NUMERIC_ARRAY: _list(st.decimals(allow_infinity=False, allow_nan=False, places=3)),
    Oid.UUID_ARRAY: _list(st.uuids()),
    Oid.JSONB_ARRAY: _list(_JSON),
}
_SINCE_2000 = "TIMESTAMP '2000-01-01' + make_interval(days => %s::integer) + %s::bigint * INTERVAL '1 microsecond'"
_INSERTED = {
    Oid.DATE: "DATE '2000-01-01' + %s::integer",
    Oid.TIMESTAMP: _SINCE_2000,
    Oid.TIMESTAMPTZ: f"({_SINCE_2000}) AT TIME ZONE 'UTC'",
}
_ROWS = st.lists(st.tuples(*[st.none() | _RANDOM[oid] for oid in Oid]), min_size=1, max_size=30)


def _parameters(row: tuple[Any, ...]) -> list[Any]:
    parameters: list[Any] = []
    for oid, value in zip(Oid, row, strict=True):
        if oid in {Oid.TIMESTAMP, Oid.TIMESTAMPTZ}:
            parameters += value or (None, None)
        else:
            parameters.append(value if value is None or isinstance(value, bytes) else str(value))
    return parameters


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(_ROWS)
def test_random_values_of_every_type_are_what_the_server_prints(kinds: Oracle, rows: list[tuple[Any, ...]]) -> None:
    columns = ", ".join(_column(oid) for oid in Oid)
    values = ", ".join(_INSERTED.get(oid, f"%s::{SQL_TYPES[oid]}") for oid in Oid)
    with kinds.conn.transaction(), kinds.conn.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO kinds ({columns}) VALUES ({values})",
            [_parameters(row) for row in rows],
        )
    _assert_server_agrees(kinds)


def test_every_prefix_and_extension_of_a_real_frame_is_an_error(kinds: Oracle) -> None:
    kinds.run("INSERT INTO kinds (a_text, a_jsonb, a_uuid) VALUES ('a', '{}', gen_random_uuid()), (NULL, '1', NULL)")
    for binary in (True, False):
        frames = kinds.peek(binary=binary)
        assert [chr(frame[25]) for frame in frames] == list("BRIIC")
        for at, frame in enumerate(frames):
            for length in [*range(len(frame)), len(frame) + 1]:
                broken = (frame + b"\0")[:length]
                with pytest.raises(FrameError):
                    Decoder({"public.kinds": "kinds"}).decode([*frames[:at], broken, *frames[at + 1 :]])


def test_a_char_above_127_is_the_same_from_both_forms_on_every_version(oracle: Oracle) -> None:
    oracle.run('CREATE TABLE chars (id bigint, c "char")')
    oracle.publish("chars")
    oracle.run("INSERT INTO chars VALUES (1, 'é'), (2, NULL), (3, 'a'), (4, '')")
    (segment,) = oracle.decode({"public.chars": "chars"}).segments
    assert segment.columns.column("c").to_pylist() == [rb"\303", None, b"a", b""]


def test_types_without_a_known_binary_form_come_as_their_text(oracle: Oracle) -> None:
    oracle.run(
        "CREATE TYPE mood AS ENUM ('glad', 'sad')",
        "CREATE DOMAIN word AS text",
        "CREATE TABLE odd (id bigint, body word, n numeric, m mood, list money[], t money, i int4range, p point)",
    )
    oracle.publish("odd")
    oracle.run(
        "INSERT INTO odd VALUES (1, 'w', 12.340, 'sad', '{1,NULL,3}', '2.50', '[1,3)', '(1,2)')",
        "INSERT INTO odd (id) VALUES (2)",
    )
    with pytest.raises(UnsupportedBinary, match="column body"):
        Decoder({"public.odd": "odd"}).decode(oracle.peek(binary=True))
    segment = Decoder({"public.odd": "odd"}).decode(oracle.peek(binary=False)).segments[0]
    full, empty = segment.columns.to_pylist()
    assert {name: str(value, "utf-8") for name, value in full.items() if name != "id"} == {
        name: value for name, value in oracle.printed("SELECT * FROM odd")[0].items() if name != "id"
    }
    assert set(empty.values()) == {2, None}
