"""Postgres itself says what each value is, in both forms of the stream; the decoder has to agree."""

from __future__ import annotations

import itertools
import json
import math
import os
import select
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import pq

from cdc_reader.column_types import Oid
from cdc_reader.columns import UnsupportedBinary
from cdc_reader.decode import Decoded, Decoder
from cdc_reader.frame import is_keepalive, parse_keepalive, standby_status
from cdc_reader.slot import conninfo
from sink.errors import FatalError, FrameError
from sink.position import Lsn
from tests.unit import pgoutput_frames as pg

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from deploy.local.stack import Stack

_numbers = itertools.count()

_SQL_TYPES = {
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
}
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
}
"""What the server is asked for each type: answers that can be compared without reading dates or floats from text."""


def _column(oid: Oid) -> str:
    return f"a_{oid.name.lower()}"


@dataclass
class Oracle:
    """A database with a slot of its own."""

    conn: psycopg.Connection[Any]
    dsn: str
    name: str

    def run(self, *statements: str) -> None:
        """Run each in a transaction of its own."""
        for statement in statements:
            self.conn.execute(statement)

    def publish(self, *tables: str) -> None:
        """Publish tables, then make the slot."""
        self.run(
            f"CREATE PUBLICATION {self.name} FOR TABLE {', '.join(tables)} "
            "WITH (publish = 'insert', publish_via_partition_root = true)",
            f"SELECT pg_create_logical_replication_slot('{self.name}', 'pgoutput')",
        )

    def peek(self, *, binary: bool) -> list[bytes]:
        """Return what the slot has, without moving it."""
        rows = self.conn.execute(
            "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, 'proto_version', '1', "
            "'publication_names', %s, 'binary', %s)",
            [self.name, self.name, str(binary).lower()],
            binary=True,
        )
        return [pg.data(row[0]) for row in rows]

    def consume(self) -> None:
        """Move the slot to the end of the WAL."""
        self.conn.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", [self.name])

    def decode(self, tables: dict[str, str]) -> Decoded:
        """Decode what the slot has in both forms; they have to be the same."""
        binary = Decoder(tables, binary=True).decode(self.peek(binary=True))
        text = Decoder(tables, binary=False).decode(self.peek(binary=False))
        assert binary.safe_lsn == text.safe_lsn
        assert binary.commit_count == text.commit_count
        for left, right in zip(binary.segments, text.segments, strict=True):
            left.columns.validate(full=True)
            right.columns.validate(full=True)
            assert left.relation == right.relation
            assert pg.same(left.columns, right.columns)
            assert left.refused.tolist() == right.refused.tolist()
            for one, other in zip(left.refused_rows, right.refused_rows, strict=True):
                assert (one.row, json.loads(one.row_json)) == (other.row, json.loads(other.row_json))
                assert one == other
            assert left.lsn.tolist() == right.lsn.tolist()
            assert left.ordinal.tolist() == right.ordinal.tolist()
        return binary

    def printed(self, query: str) -> list[dict[str, str | None]]:
        """Return rows as the types' own output functions print them."""
        result = self.conn.pgconn.exec_(query.encode())
        assert result.status == pq.ExecStatus.TUPLES_OK, result.error_message
        names = [(result.fname(at) or b"").decode() for at in range(result.nfields)]
        rows = [[result.get_value(row, at) for at in range(result.nfields)] for row in range(result.ntuples)]
        return [dict(zip(names, [None if one is None else one.decode() for one in row], strict=True)) for row in rows]


@pytest.fixture
def oracle(stack: Stack) -> Iterator[Oracle]:
    base = stack.env()["OUTHAUL_POSTGRES_DSN"]
    name = f"oracle_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(base, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        dsn = conninfo(base, dbname=name)
        with psycopg.connect(dsn, autocommit=True) as conn:
            yield Oracle(conn, dsn, name)
        admin.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [name]
        )
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def kinds(oracle: Oracle) -> Oracle:
    """A table with a column of every type; its last column has every row refused, and so printed whole."""
    columns = ", ".join(f"{_column(oid)} {kind}" for oid, kind in _SQL_TYPES.items())
    oracle.run(
        f"CREATE TABLE kinds (id bigserial PRIMARY KEY, {columns}, always date DEFAULT 'infinity')",
        "ALTER TABLE kinds ALTER a_text SET STORAGE EXTERNAL",
    )
    oracle.publish("kinds")
    return oracle


def _assert_server_agrees(oracle: Oracle) -> None:
    """Compare every value that is waiting in the slot with what the server says of it, and move on."""
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
}


def test_special_values_of_every_type_are_what_the_server_says(kinds: Oracle) -> None:
    with kinds.conn.transaction():
        for oid, values in SPECIAL.items():
            cast = f"%s::{_SQL_TYPES[oid]}"
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
def test_random_values_of_every_type_are_what_the_server_says(kinds: Oracle, rows: list[tuple[Any, ...]]) -> None:
    columns = ", ".join(_column(oid) for oid in Oid)
    values = ", ".join(_INSERTED.get(oid, f"%s::{_SQL_TYPES[oid]}") for oid in Oid)
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
                    Decoder({"public.kinds": "kinds"}, binary=binary).decode([*frames[:at], broken, *frames[at + 1 :]])


@pytest.fixture
def notes(oracle: Oracle) -> Oracle:
    oracle.run(
        "CREATE TABLE note (id bigserial PRIMARY KEY, body text)", "CREATE TABLE other (id bigserial, body text)"
    )
    oracle.publish("note", "other")
    return oracle


NOTES = {"public.note": "note", "public.other": "other"}


def _rows(decoded: Decoded) -> dict[str, list[tuple[int, int, Any]]]:
    """Return (number of the transaction from 0, ordinal, body) of each row, by table."""
    lsns = sorted({int(lsn) for segment in decoded.segments for lsn in segment.lsn})
    rows: dict[str, list[tuple[int, int, Any]]] = {}
    for segment in decoded.segments:
        bodies = segment.columns.column("body").to_pylist()
        for lsn, ordinal, body in zip(segment.lsn, segment.ordinal, bodies, strict=True):
            rows.setdefault(segment.table, []).append((lsns.index(int(lsn)), int(ordinal), body))
    return rows


def test_copy_and_multi_row_inserts_give_every_row_a_position_of_its_own(notes: Oracle) -> None:
    with notes.conn.cursor() as cursor, cursor.copy("COPY note (body) FROM STDIN") as copy:
        for number in range(2000):
            copy.write_row([str(number)])
    notes.run("INSERT INTO note (body) SELECT g::text FROM generate_series(1, 3) AS g")
    decoded = notes.decode(NOTES)
    expected = [(0, n, str(n).encode()) for n in range(2000)] + [(1, n, str(n + 1).encode()) for n in range(3)]
    assert _rows(decoded) == {"note": expected}
    assert decoded.commit_count == 2


def test_rolled_back_transactions_and_savepoints_leave_no_row_and_no_ordinal(notes: Oracle) -> None:
    notes.run(
        "BEGIN",
        "INSERT INTO note (body) VALUES ('a')",
        "SAVEPOINT s",
        "INSERT INTO note (body) VALUES ('lost')",
        "ROLLBACK TO s",
        "SAVEPOINT t",
        "INSERT INTO note (body) VALUES ('b')",
        "RELEASE t",
        "INSERT INTO other (body) VALUES ('c')",
        "INSERT INTO note (body) VALUES ('d')",
        "COMMIT",
        "BEGIN",
        "INSERT INTO note (body) VALUES ('lost')",
        "ROLLBACK",
    )
    assert _rows(notes.decode(NOTES)) == {"note": [(0, 0, b"a"), (0, 1, b"b"), (0, 2, b"d")], "other": [(0, 0, b"c")]}


def test_commit_times_are_those_of_the_server(notes: Oracle) -> None:
    row = notes.conn.execute("SELECT extract(epoch FROM clock_timestamp()) * 1000000").fetchone()
    assert row
    notes.run("INSERT INTO note (body) VALUES ('a')")
    later = notes.conn.execute("SELECT extract(epoch FROM clock_timestamp()) * 1000000").fetchone()
    assert later
    assert int(row[0]) <= notes.decode(NOTES).segments[0].committed_at_us[0] <= int(later[0])


def test_columns_that_come_and_go_start_new_segments_and_ordinals_go_on(notes: Oracle) -> None:
    notes.run(
        "INSERT INTO note (body) VALUES ('a')",
        "ALTER TABLE note ADD COLUMN extra integer DEFAULT 5",
        "INSERT INTO note (body) VALUES ('b')",
        "BEGIN",
        "INSERT INTO note (body) VALUES ('c')",
        "ALTER TABLE note ADD COLUMN more timestamptz",
        "INSERT INTO note (body, more) VALUES ('d', '2024-01-01')",
        "ALTER TABLE note DROP COLUMN extra",
        "INSERT INTO note (body) VALUES ('e')",
        "COMMIT",
    )
    decoded = notes.decode(NOTES)
    assert _rows(decoded) == {"note": [(0, 0, b"a"), (1, 0, b"b"), (2, 0, b"c"), (2, 1, b"d"), (2, 2, b"e")]}
    assert [segment.columns.schema.names for segment in decoded.segments] == [
        ["id", "body"],
        ["id", "body", "extra"],
        ["id", "body", "extra", "more"],
        ["id", "body", "more"],
    ]


def test_a_renamed_table_is_another_table(notes: Oracle) -> None:
    notes.run("INSERT INTO note (body) VALUES ('a')", "ALTER TABLE note RENAME TO memo")
    notes.run("INSERT INTO memo (body) VALUES ('b')")
    with pytest.raises(FatalError, match="memo"):
        notes.decode(NOTES)
    assert _rows(notes.decode({**NOTES, "public.memo": "memo"})) == {"note": [(0, 0, b"a")], "memo": [(1, 0, b"b")]}


def test_rows_of_partitions_come_as_rows_of_their_root(oracle: Oracle) -> None:
    oracle.run(
        "CREATE TABLE parted (id bigint, body text) PARTITION BY RANGE (id)",
        "CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE part_2 (body text, id bigint)",
        "ALTER TABLE parted ATTACH PARTITION part_2 FOR VALUES FROM (10) TO (20)",
    )
    oracle.publish("parted")
    oracle.run("INSERT INTO parted VALUES (1, 'a'), (11, 'b'), (2, 'c')")
    assert _rows(oracle.decode({"public.parted": "parted"})) == {"parted": [(0, 0, b"a"), (0, 1, b"b"), (0, 2, b"c")]}


def test_types_without_a_known_binary_form_come_as_their_text(oracle: Oracle) -> None:
    oracle.run(
        "CREATE TYPE mood AS ENUM ('glad', 'sad')",
        "CREATE DOMAIN word AS text",
        "CREATE TABLE odd (id bigint, body word, n numeric, m mood, list integer[], t time, i interval, net inet)",
    )
    oracle.publish("odd")
    oracle.run(
        "INSERT INTO odd VALUES (1, 'w', 12.340, 'sad', '{1,NULL,3}', '24:00:00', '1 day', '10.0.0.0/8')",
        "INSERT INTO odd (id) VALUES (2)",
    )
    with pytest.raises(UnsupportedBinary) as error:
        Decoder({"public.odd": "odd"}, binary=True).decode(oracle.peek(binary=True))
    assert error.value.column == "body"
    segment = Decoder({"public.odd": "odd"}, binary=False).decode(oracle.peek(binary=False)).segments[0]
    full, empty = segment.columns.to_pylist()
    assert {name: str(value, "utf-8") for name, value in full.items() if name != "id"} == {
        name: value for name, value in oracle.printed("SELECT * FROM odd")[0].items() if name != "id"
    }
    assert set(empty.values()) == {2, None}


def test_housekeeping_that_a_publication_lets_through_captures_nothing(oracle: Oracle) -> None:
    oracle.run("CREATE TABLE note (id bigserial PRIMARY KEY, body text)", "ALTER TABLE note REPLICA IDENTITY FULL")
    oracle.publish("note")
    oracle.run(
        f"ALTER PUBLICATION {oracle.name} SET (publish = 'insert, update, delete, truncate')",
        "INSERT INTO note (body) VALUES ('a'), (repeat('x', 100000))",
        "UPDATE note SET id = id + 10",
        "DELETE FROM note WHERE id = 11",
        "TRUNCATE note",
        "INSERT INTO note (body) VALUES ('b')",
    )
    decoded = oracle.decode({"public.note": "note"})
    assert [body for _, _, body in _rows(decoded)["note"]] == [b"a", b"x" * 100_000, b"b"]
    assert {chr(frame[25]) for frame in oracle.peek(binary=True)} == set("BRIUDTC")


def _stream(oracle: Oracle, until: Lsn, deadline_s: float = 20.0) -> list[bytes]:
    """Stream from the slot until the server says that it has sent everything up to `until`."""
    conn = pq.PGconn.connect(conninfo(oracle.dsn, replication="database").encode())
    assert conn.status == pq.ConnStatus.OK, conn.error_message
    command = (
        f"START_REPLICATION SLOT {oracle.name} LOGICAL 0/0 "
        f"(proto_version '1', publication_names '{oracle.name}', binary 'true')"
    )
    assert conn.exec_(command.encode()).status == pq.ExecStatus.COPY_BOTH
    frames: list[bytes] = []
    end = time.monotonic() + deadline_s
    try:
        while True:
            length, frame = conn.get_copy_data(1)
            assert length >= 0, conn.error_message
            if length:
                frames.append(bytes(frame))
                if is_keepalive(frames[-1]) and parse_keepalive(frames[-1]).wal_end >= until:
                    return frames
                continue
            assert time.monotonic() < end, f"{until} was not reached"
            conn.put_copy_data(standby_status(Lsn(0), Lsn(0), Lsn(0), 0, reply_requested=True))
            conn.flush()
            select.select([conn.socket], [], [], 0.2)
            conn.consume_input()
    finally:
        conn.finish()


def test_the_stream_cut_anywhere_gives_what_the_slot_function_gives(notes: Oracle) -> None:
    notes.run(
        "INSERT INTO note (body) SELECT repeat('x', g) FROM generate_series(1, 500) AS g",
        "INSERT INTO other (body) VALUES ('a')",
        "CREATE TABLE unpublished (id bigint)",
        "INSERT INTO unpublished SELECT generate_series(1, 1000)",
        "WITH n AS (INSERT INTO note (body) VALUES ('b')) INSERT INTO other (body) VALUES ('c'), ('d')",
    )
    row = notes.conn.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    assert row
    until = Lsn.parse(row[0])
    frames = _stream(notes, until)
    whole = Decoder(NOTES, binary=True).decode(frames)
    assert _rows(whole) == _rows(notes.decode(NOTES))
    assert whole.safe_lsn is not None
    assert whole.safe_lsn >= until
    for size in (1, 2, 7, 100):
        one = Decoder(NOTES, binary=True)
        pieces = [one.decode(frames[at : at + size]) for at in range(0, len(frames), size)]
        rows: dict[str, list[Any]] = {}
        for piece in pieces:
            for segment in piece.segments:
                bodies = segment.columns.column("body").to_pylist()
                rows.setdefault(segment.table, []).extend(
                    zip(segment.lsn.tolist(), segment.ordinal.tolist(), bodies, strict=True)
                )
        expected: dict[str, list[Any]] = {}
        for segment in whole.segments:
            bodies = segment.columns.column("body").to_pylist()
            expected[segment.table] = list(zip(segment.lsn.tolist(), segment.ordinal.tolist(), bodies, strict=True))
        assert rows == expected
        assert max(piece.safe_lsn or Lsn(0) for piece in pieces) == whole.safe_lsn
