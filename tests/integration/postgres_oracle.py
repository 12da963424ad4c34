"""Postgres as the oracle of the decoder: what it streams in both forms, and how it prints the same rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq

from outhaul.cdc_reader.capture.decode import Decoded, Decoder
from tests.unit import pgoutput_frames as pg


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
        binary = Decoder(tables).decode(self.peek(binary=True))
        text = Decoder(tables).decode(self.peek(binary=False))
        assert binary.safe_lsn == text.safe_lsn
        assert binary.commit_count == text.commit_count
        for left, right in zip(binary.segments, text.segments, strict=True):
            left.columns.validate(full=True)
            right.columns.validate(full=True)
            assert left.columns.schema.equals(right.columns.schema, check_metadata=True)
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
