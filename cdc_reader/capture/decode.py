"""Pieces of the replication stream -> segments of decoded rows with their positions, and how far may be confirmed.

Pure, with state from piece to piece: the relations seen, and the transaction that is open. A piece may be cut anywhere;
the rows and their positions do not depend on where. Whoever breaks the protocol gets a FrameError, and the decoder is
spent.

Source: https://www.postgresql.org/docs/current/protocol-logical-replication.html
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from outhaul.cdc_reader.capture import arrow
from outhaul.cdc_reader.capture.columns import RefusedRow, Rows, decode_rows
from outhaul.cdc_reader.capture.frame import Bools, Frames, Ints, Lsns, gather, split
from outhaul.cdc_reader.capture.logical_message import FIRST_ORDINAL, Emitted, decode_emitted
from outhaul.cdc_reader.capture.message import (
    BEGIN,
    COMMIT,
    INSERT,
    MESSAGE,
    RELATION,
    Reader,
    Relation,
    check_other,
    parse_message,
    parse_relation,
)
from outhaul.cdc_reader.capture.transactions import Open, Transactions, follow, ordinals
from outhaul.sink.errors import FatalError, FrameError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    from outhaul.sink.position import Lsn

_RARE = np.ones(256, np.bool_)
_RARE[[BEGIN, COMMIT, INSERT]] = False
_ROW_CHANGES = frozenset(b"UDT")


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows for one ClickHouse table, all of the same columns, in stream order.

    `lsn` and `ordinal` are the rows' positions, `committed_at_us` the Unix microseconds of their commits. `refused`
    rows cannot be stored as they are; `refused_rows` has them whole, its `row` counts the rows of this segment.
    """

    table: str
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
    stray_messages: int = 0
    """Messages of ours outside of any transaction, which have no position."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Insert messages of one version of a relation, by their index in the piece; or logical messages of ours."""

    table: str
    rows: Ints
    source: Relation | tuple[Emitted, ...]

    @property
    def counted_as(self) -> str:
        """What its rows are counted with within a transaction: all rows of a ClickHouse table, or all messages."""
        return self.table if isinstance(self.source, Relation) else f"messages to {self.table}"


@dataclass(frozen=True, slots=True)
class _Count:
    """All rows in the piece that are counted together, the number of each, and the ordinal of number 0."""

    rows: Ints
    number: Lsns
    first_ordinal: int


@dataclass(frozen=True, slots=True)
class _Rare:
    """What a piece holds beside Begin, Commit and Insert: relations, and logical messages of ours by their index."""

    changes: _Changes
    emitted: dict[str, list[tuple[int, Emitted]]]
    stray_messages: int


_Changes: TypeAlias = dict[int, list[tuple[int, Relation]]]
"""For each oid the relations that a piece brings, each with the index of its message."""


class Decoder:
    """Decodes one replication connection from its start."""

    def __init__(
        self,
        tables: Mapping[str, str],
        *,
        binary: bool,
        messages: Mapping[str, str] = MappingProxyType({}),
        first_ordinal: int = 0,
    ) -> None:
        """Capture `tables`, a ClickHouse table for each `schema.table`; `binary` as the stream was asked for.

        `messages` has a ClickHouse table for each prefix of logical messages; those of other prefixes are passed over.
        `first_ordinal` is the number of a transaction's first row.
        """
        self._tables = tables
        self._messages = messages
        self._first_ordinal = first_ordinal
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
        rare = self._rare(piece, transactions)
        rows = np.flatnonzero(piece.tags == INSERT)
        if not transactions.running[rows].all():
            raise FrameError("a row came where no transaction was open")
        runs = self._runs(piece, rows, rare)
        counts = {name: self._count(name, runs, transactions) for name in {run.counted_as for run in runs}}
        segments = tuple(self._segment(piece, run, transactions, counts[run.counted_as]) for run in runs)
        self._relations |= {oid: versions[-1][1] for oid, versions in rare.changes.items()}
        self._open = transactions.after(_carry(counts, transactions, self._open))
        self._usable = True
        return Decoded(
            segments, transactions.safe_lsn, self._open.running, transactions.commit_count, rare.stray_messages
        )

    def _rare(self, piece: Frames, transactions: Transactions) -> _Rare:
        changes: _Changes = {}
        emitted: dict[str, list[tuple[int, Emitted]]] = {}
        strays = 0
        for at in np.flatnonzero(_RARE[piece.tags]):
            message = Reader(piece.buffer, int(piece.starts[at]), int(piece.ends[at]))
            match int(piece.tags[at]):
                case tag if tag == RELATION:
                    relation = parse_relation(message)
                    versions = changes.setdefault(relation.oid, [])
                    if relation != (versions[-1][1] if versions else self._relations.get(relation.oid)):
                        versions.append((int(at), relation))
                case tag if tag == MESSAGE:
                    said = parse_message(message)
                    if said.prefix not in self._messages:
                        continue
                    if not said.transactional:
                        strays += 1
                        continue
                    _check_running(transactions, int(at))
                    entry = (int(at), Emitted(said.lsn, said.content))
                    emitted.setdefault(self._messages[said.prefix], []).append(entry)
                case tag:
                    check_other(message)
                    if tag in _ROW_CHANGES:
                        _check_running(transactions, int(at))
        return _Rare({oid: versions for oid, versions in changes.items() if versions}, emitted, strays)

    def _runs(self, piece: Frames, rows: Ints, rare: _Rare) -> list[_Run]:
        oids = gather(piece.buffer, piece.starts[rows] + 1, np.uint32)
        one = len(oids) > 0 and bool((oids == oids[0]).all())
        kinds = oids[:1] if one else np.unique(oids)
        runs = [run for oid in kinds for run in self._versions(int(oid), rows[oids == oid], rare.changes)]
        for table, entries in rare.emitted.items():
            at, messages = zip(*entries, strict=True)
            runs.append(_Run(table, np.array(at, np.int64), messages))
        return sorted(runs, key=lambda run: int(run.rows[0]))

    def _versions(self, oid: int, rows: Ints, changes: _Changes) -> Iterator[_Run]:
        versions = [(-1, self._relations.get(oid)), *changes.get(oid, [])]
        parts = np.split(rows, np.searchsorted(rows, [at for at, _ in versions[1:]]))
        for (_, relation), part in zip(versions, parts, strict=True):
            if not len(part):
                continue
            if relation is None:
                raise FrameError(f"a row came of the relation {oid}, which was not announced")
            yield _Run(self._table(relation), part, relation)

    def _table(self, relation: Relation) -> str:
        table = self._tables.get(relation.table)
        if table is None:
            raise FatalError(
                f"the publication holds {relation.table}, which is not captured",
                todo="Take the table out of the publication, or name it among the captured tables",
            )
        return table

    def _count(self, name: str, runs: Sequence[_Run], transactions: Transactions) -> _Count:
        """Count over all runs that are counted together, so that no position in a ClickHouse table is given twice."""
        counted = [run for run in runs if run.counted_as == name]
        rows = counted[0].rows if len(counted) == 1 else np.sort(np.concatenate([run.rows for run in counted]))
        first = self._first_ordinal if isinstance(counted[0].source, Relation) else FIRST_ORDINAL
        return _Count(rows, ordinals(transactions.number[rows], self._open.rows.get(name, 0)), first)

    def _segment(self, piece: Frames, run: _Run, transactions: Transactions, count: _Count) -> Segment:
        decoded = self._decode(piece, run)
        number = transactions.number[run.rows]
        return Segment(
            table=run.table,
            columns=decoded.columns,
            lsn=transactions.commit_lsn[number],
            ordinal=count.number[np.searchsorted(count.rows, run.rows)] + np.uint64(count.first_ordinal),
            committed_at_us=transactions.committed_at_us[number],
            refused=decoded.refused,
            refused_rows=decoded.refused_rows,
        )

    def _decode(self, piece: Frames, run: _Run) -> Rows:
        if isinstance(run.source, Relation):
            return decode_rows(piece, run.rows, run.source, binary=self._binary)
        return decode_emitted(run.source)


def _check_running(transactions: Transactions, at: int) -> None:
    if not transactions.running[at]:
        raise FrameError("a change came where no transaction was open")


def _carry(counts: Mapping[str, _Count], transactions: Transactions, before: Open) -> dict[str, int]:
    """Return how many rows of each kind the transaction has that is open at the end of the piece."""
    last = len(transactions.commit_lsn) - 1
    if not transactions.running[-1]:
        return {}
    rows = dict(before.rows) if last == 0 else {}
    for name, count in counts.items():
        if transactions.number[count.rows[-1]] == last:
            rows[name] = int(count.number[-1]) + 1
    return rows
