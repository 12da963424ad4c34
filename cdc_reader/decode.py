"""Pieces of the replication stream -> segments of decoded rows with their positions, and how far may be confirmed.

Pure, with state from piece to piece: the relations seen, and the transaction that is open. A piece may be cut anywhere;
the rows and their positions do not depend on where. Whoever breaks the protocol gets a FrameError, and the decoder is
spent.

Source: https://www.postgresql.org/docs/current/protocol-logical-replication.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from cdc_reader import arrow
from cdc_reader.columns import RefusedRow, decode_rows
from cdc_reader.frame import Bools, Frames, Ints, Lsns, gather, split
from cdc_reader.message import BEGIN, COMMIT, INSERT, RELATION, Reader, Relation, check_other, parse_relation
from cdc_reader.transactions import Open, Transactions, follow, ordinals
from sink.errors import FatalError, FrameError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    from sink.position import Lsn

_RARE = np.ones(256, np.bool_)
_RARE[[BEGIN, COMMIT, INSERT]] = False
_ROW_CHANGES = frozenset(b"UDT")


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows of one table, all written under one version of its relation, in stream order.

    `lsn` and `ordinal` are the rows' positions, `committed_at_us` the Unix microseconds of their commits. `refused`
    rows cannot be stored as they are; `refused_rows` has them whole, its `row` counts the rows of this segment.
    """

    table: str
    relation: Relation
    columns: pa.RecordBatch
    lsn: Lsns
    ordinal: Lsns
    committed_at_us: Ints
    refused: Bools
    refused_rows: tuple[RefusedRow, ...]

    def __len__(self) -> int:
        return len(self.lsn)

    def take(self, keep: Bools) -> Segment:
        """Return the rows that the mask keeps; a copy only where it keeps not all."""
        if keep.all():
            return self
        places = np.cumsum(keep) - 1
        return Segment(
            table=self.table,
            relation=self.relation,
            columns=self.columns.filter(arrow.bools(keep)),
            lsn=self.lsn[keep],
            ordinal=self.ordinal[keep],
            committed_at_us=self.committed_at_us[keep],
            refused=self.refused[keep],
            refused_rows=tuple(one._replace(row=int(places[one.row])) for one in self.refused_rows if keep[one.row]),
        )


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one piece held.

    Once every row of this piece and of all before it is stored, `safe_lsn` may be confirmed; None says nothing new.
    """

    segments: tuple[Segment, ...]
    safe_lsn: Lsn | None
    in_transaction: bool
    commit_count: int


@dataclass(frozen=True, slots=True)
class _Run:
    """Insert messages of one version of a relation, by their index in the piece."""

    table: str
    relation: Relation
    rows: Ints


@dataclass(frozen=True, slots=True)
class _Count:
    """All rows of one ClickHouse table in the piece, and the ordinal of each."""

    rows: Ints
    ordinal: Lsns


_Changes: TypeAlias = dict[int, list[tuple[int, Relation]]]
"""For each oid the relations that a piece brings, each with the index of its message."""


class Decoder:
    """Decodes one replication connection from its start."""

    def __init__(self, tables: Mapping[str, str], *, binary: bool) -> None:
        """Capture `tables`, a ClickHouse table for each `schema.table`; `binary` as the stream was asked for."""
        self._tables = tables
        self._binary = binary
        self._relations: dict[int, Relation] = {}
        self._open = Open()
        self._usable = True

    def decode(self, frames: Sequence[bytes | bytearray], lengths: Sequence[int] | None = None) -> Decoded:
        """Decode the next piece of the stream; `lengths` of the single frames where `frames` are joined runs of them.

        Raises:
            FrameError: the bytes or their order are not what the protocol says.
            FatalError: rows of a table came that nobody asked to capture.
            UnsupportedBinary: a type without a binary form that we know; connect again with text tuples.
        """
        if not self._usable:
            raise FrameError("the decoder has met an error before and cannot go on", todo="Connect again")
        self._usable = False
        piece = split(frames, lengths)
        transactions = follow(piece, self._open)
        changes = _relation_changes(piece, transactions, self._relations)
        rows = np.flatnonzero(piece.tags == INSERT)
        if not transactions.running[rows].all():
            raise FrameError("a row came where no transaction was open")
        runs = self._runs(piece, rows, changes)
        counts = {table: _count(table, runs, transactions, self._open) for table in {run.table for run in runs}}
        segments = tuple(self._segment(piece, run, transactions, counts[run.table]) for run in runs)
        self._relations |= {oid: versions[-1][1] for oid, versions in changes.items()}
        self._open = transactions.after(_carry(counts, transactions, self._open))
        self._usable = True
        return Decoded(segments, transactions.safe_lsn, self._open.running, transactions.commit_count)

    def _runs(self, piece: Frames, rows: Ints, changes: _Changes) -> list[_Run]:
        oids = gather(piece.buffer, piece.starts[rows] + 1, np.uint32)
        one = len(oids) > 0 and bool((oids == oids[0]).all())
        kinds = oids[:1] if one else np.unique(oids)
        runs = [run for oid in kinds for run in self._versions(int(oid), rows[oids == oid], changes)]
        return sorted(runs, key=lambda run: int(run.rows[0]))

    def _versions(self, oid: int, rows: Ints, changes: _Changes) -> Iterator[_Run]:
        versions = [(-1, self._relations.get(oid)), *changes.get(oid, [])]
        parts = np.split(rows, np.searchsorted(rows, [at for at, _ in versions[1:]]))
        for (_, relation), part in zip(versions, parts, strict=True):
            if not len(part):
                continue
            if relation is None:
                raise FrameError(f"a row came of the relation {oid}, which was not announced")
            yield _Run(self._table(relation), relation, part)

    def _table(self, relation: Relation) -> str:
        table = self._tables.get(relation.table)
        if table is None:
            raise FatalError(
                f"the publication holds {relation.table}, which is not captured",
                todo="Take the table out of the publication, or name it among the captured tables",
            )
        return table

    def _segment(self, piece: Frames, run: _Run, transactions: Transactions, count: _Count) -> Segment:
        decoded = decode_rows(piece, run.rows, run.relation, binary=self._binary)
        number = transactions.number[run.rows]
        return Segment(
            table=run.table,
            relation=run.relation,
            columns=decoded.columns,
            lsn=transactions.commit_lsn[number],
            ordinal=count.ordinal[np.searchsorted(count.rows, run.rows)],
            committed_at_us=transactions.committed_at_us[number],
            refused=decoded.refused,
            refused_rows=decoded.refused_rows,
        )


def _relation_changes(piece: Frames, transactions: Transactions, known: Mapping[int, Relation]) -> _Changes:
    """Read what is neither Begin, Commit nor Insert; return the relations that are new or other than before."""
    changes: _Changes = {}
    for at in np.flatnonzero(_RARE[piece.tags]):
        message = Reader(piece.buffer, int(piece.starts[at]), int(piece.ends[at]))
        if piece.tags[at] != RELATION:
            check_other(message)
            if int(piece.tags[at]) in _ROW_CHANGES and not transactions.running[at]:
                raise FrameError("a change came where no transaction was open")
            continue
        relation = parse_relation(message)
        versions = changes.setdefault(relation.oid, [])
        if relation != (versions[-1][1] if versions else known.get(relation.oid)):
            versions.append((int(at), relation))
    return {oid: versions for oid, versions in changes.items() if versions}


def _count(table: str, runs: Sequence[_Run], transactions: Transactions, before: Open) -> _Count:
    """Count over all relations of one ClickHouse table, so that a position in it is never given twice."""
    mine = [run.rows for run in runs if run.table == table]
    rows = mine[0] if len(mine) == 1 else np.sort(np.concatenate(mine))
    return _Count(rows, ordinals(transactions.number[rows], before.rows.get(table, 0)))


def _carry(counts: Mapping[str, _Count], transactions: Transactions, before: Open) -> dict[str, int]:
    """Return how many rows of each table the transaction has that is open at the end of the piece."""
    last = len(transactions.commit_lsn) - 1
    if not transactions.running[-1]:
        return {}
    rows = dict(before.rows) if last == 0 else {}
    for table, count in counts.items():
        if transactions.number[count.rows[-1]] == last:
            rows[table] = int(count.ordinal[-1]) + 1
    return rows
