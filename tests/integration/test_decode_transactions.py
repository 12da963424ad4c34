"""Rows of real transactions, however they were written: their positions, their commits, and nothing that was undone."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import pq

from outhaul.cdc_reader.capture.decode import Decoded, Decoder
from outhaul.cdc_reader.capture.frame import is_keepalive, parse_keepalive, standby_status
from outhaul.cdc_reader.postgres.login import conninfo
from outhaul.sink.errors import FatalError
from outhaul.sink.position import Lsn
from tests.conftest import until as wait_until

if TYPE_CHECKING:
    from tests.integration.postgres_oracle import Oracle


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
        # The walsender notices a moment later; until then the slot can be neither read nor dropped.
        free = "SELECT count(*) = 1 FROM pg_replication_slots WHERE slot_name = %s AND NOT active"
        wait_until(lambda: oracle.conn.execute(free, [oracle.name]).fetchone() == (True,), what="the slot is free")


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
    whole = Decoder(NOTES).decode(frames)
    assert _rows(whole) == _rows(notes.decode(NOTES))
    assert whole.safe_lsn is not None
    assert whole.safe_lsn >= until
    for size in (1, 2, 7, 100):
        one = Decoder(NOTES)
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
