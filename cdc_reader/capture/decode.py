"""Pieces of the replication stream -> segments of decoded rows with their positions, and the LSN that may be confirmed.

Pure, with state from piece to piece: the relations received, and the open transaction. A piece may be cut between any
two frames; the rows and their positions do not depend on it. If the stream violates the protocol, a FrameError is
raised, and the decoder cannot be used again.

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
from outhaul.cdc_reader.capture.pgoutput_messages import (
    BEGIN,
    COMMIT,
    INSERT,
    MESSAGE,
    RELATION,
    ByteReader,
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
    """Rows for one ClickHouse table, all with the same columns, in stream order.

    `lsn` and `ordinal` are the rows' positions, `committed_at_us` the Unix microseconds of their commits. Rows in
    `refused` cannot be stored; `refused_rows` has them whole, with their index in this segment.
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
        """Return the rows that the mask keeps; without a copy if it keeps all."""
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
    """The content of one piece.

    When all rows of this piece and of all earlier pieces are stored, `safe_lsn` may be confirmed; None changes nothing.
    """

    segments: tuple[Segment, ...]
    safe_lsn: Lsn | None
    in_transaction: bool
    commit_count: int
    stray_messages: int = 0
    """Number of messages with a captured prefix outside of transactions: they have no position."""


@dataclass(frozen=True, slots=True)
class _RowGroup:
    """Insert messages of one version of a relation, or logical messages, by their index in the piece."""

    table: str
    rows: Ints
    source: Relation | tuple[Emitted, ...]

    @property
    def counter(self) -> str:
        """Name of the counter for ordinals: one for the rows of a ClickHouse table, and one for its messages."""
        return self.table if isinstance(self.source, Relation) else f"messages to {self.table}"


@dataclass(frozen=True, slots=True)
class _Count:
    """The rows of the piece that share a counter, the number of each, and the ordinal of number 0."""

    rows: Ints
    number: Lsns
    first_ordinal: int


@dataclass(frozen=True, slots=True)
class _Rare:
    """The relations of a piece, its logical messages with a captured prefix, and the number of stray ones."""

    changes: _Changes
    emitted: dict[str, list[tuple[int, Emitted]]]
    stray_messages: int


_Changes: TypeAlias = dict[int, list[tuple[int, Relation]]]
"""By oid, the new versions of a relation in a piece, each with the index of its message."""


class Decoder:
    """Decodes the stream of one replication connection, from its start."""

    def __init__(
        self,
        tables: Mapping[str, str],
        *,
        messages: Mapping[str, str] = MappingProxyType({}),
        first_ordinal: int = 0,
    ) -> None:
        """Start before the first piece.

        Args:
            tables: the ClickHouse table of each captured `schema.table`.
            messages: the ClickHouse table of each captured prefix of logical messages; other prefixes are ignored.
            first_ordinal: ordinal of the first row of a transaction.
        """
        self._tables = tables
        self._messages = messages
        self._first_ordinal = first_ordinal
        self._relations: dict[int, Relation] = {}
        self._open = Open()
        self._usable = True

    def decode(self, frames: Sequence[bytes | bytearray], lengths: Sequence[int] | None = None) -> Decoded:
        """Decode the next piece of the stream; `lengths` has the length of each frame if `frames` are joined.

        Raises:
            FrameError: the bytes or their order violate the protocol.
            FatalError: a row belongs to a table that is not captured.
            UnsupportedBinary: a value is in a binary form that is not decoded; connect again with text tuples.
        """
        if not self._usable:
            raise FrameError("the decoder cannot be used after an error", todo="Connect again")
        self._usable = False
        piece = split(frames, lengths)
        transactions = follow(piece, self._open)
        rare = self._rare(piece, transactions)
        rows = np.flatnonzero(piece.tags == INSERT)
        if not transactions.running[rows].all():
            raise FrameError("a row was received while no transaction was open")
        groups = self._groups(piece, rows, rare)
        counts = {name: self._count(name, groups, transactions) for name in {group.counter for group in groups}}
        segments = tuple(self._segment(piece, group, transactions, counts[group.counter]) for group in groups)
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
            message = ByteReader(piece.buffer, int(piece.starts[at]), int(piece.ends[at]))
            match int(piece.tags[at]):
                case tag if tag == RELATION:
                    relation = parse_relation(message)
                    versions = changes.setdefault(relation.oid, [])
                    if relation != (versions[-1][1] if versions else self._relations.get(relation.oid)):
                        versions.append((int(at), relation))
                case tag if tag == MESSAGE:
                    logical = parse_message(message)
                    if logical.prefix not in self._messages:
                        continue
                    if not logical.transactional:
                        strays += 1
                        continue
                    _check_running(transactions, int(at))
                    entry = (int(at), Emitted(logical.lsn, logical.content))
                    emitted.setdefault(self._messages[logical.prefix], []).append(entry)
                case tag:
                    check_other(message)
                    if tag in _ROW_CHANGES:
                        _check_running(transactions, int(at))
        return _Rare({oid: versions for oid, versions in changes.items() if versions}, emitted, strays)

    def _groups(self, piece: Frames, rows: Ints, rare: _Rare) -> list[_RowGroup]:
        oids = gather(piece.buffer, piece.starts[rows] + 1, np.uint32)
        is_single = len(oids) > 0 and bool((oids == oids[0]).all())
        distinct = oids[:1] if is_single else np.unique(oids)
        groups = [group for oid in distinct for group in self._versions(int(oid), rows[oids == oid], rare.changes)]
        for table, entries in rare.emitted.items():
            at, messages = zip(*entries, strict=True)
            groups.append(_RowGroup(table, np.array(at, np.int64), messages))
        return sorted(groups, key=lambda group: int(group.rows[0]))

    def _versions(self, oid: int, rows: Ints, changes: _Changes) -> Iterator[_RowGroup]:
        versions = [(-1, self._relations.get(oid)), *changes.get(oid, [])]
        parts = np.split(rows, np.searchsorted(rows, [at for at, _ in versions[1:]]))
        for (_, relation), part in zip(versions, parts, strict=True):
            if not len(part):
                continue
            if relation is None:
                raise FrameError(f"a row of relation {oid} was received, which was not announced")
            yield _RowGroup(self._table(relation), part, relation)

    def _table(self, relation: Relation) -> str:
        table = self._tables.get(relation.table)
        if table is None:
            raise FatalError(
                f"the publication has the table {relation.table}, which is not captured",
                todo="Remove the table from the publication, or add it to the captured tables",
            )
        return table

    def _count(self, name: str, groups: Sequence[_RowGroup], transactions: Transactions) -> _Count:
        """Number the rows of all groups that share a counter, so that no position in a table occurs twice."""
        counted = [group for group in groups if group.counter == name]
        rows = counted[0].rows if len(counted) == 1 else np.sort(np.concatenate([group.rows for group in counted]))
        first = self._first_ordinal if isinstance(counted[0].source, Relation) else FIRST_ORDINAL
        return _Count(rows, ordinals(transactions.number[rows], self._open.rows.get(name, 0)), first)

    def _segment(self, piece: Frames, group: _RowGroup, transactions: Transactions, count: _Count) -> Segment:
        decoded = self._decode(piece, group)
        number = transactions.number[group.rows]
        return Segment(
            table=group.table,
            columns=decoded.columns,
            lsn=transactions.commit_lsn[number],
            ordinal=count.number[np.searchsorted(count.rows, group.rows)] + np.uint64(count.first_ordinal),
            committed_at_us=transactions.committed_at_us[number],
            refused=decoded.refused,
            refused_rows=decoded.refused_rows,
        )

    def _decode(self, piece: Frames, group: _RowGroup) -> Rows:
        if isinstance(group.source, Relation):
            return decode_rows(piece, group.rows, group.source)
        return decode_emitted(group.source)


def _check_running(transactions: Transactions, at: int) -> None:
    if not transactions.running[at]:
        raise FrameError("a change was received while no transaction was open")


def _carry(counts: Mapping[str, _Count], transactions: Transactions, before: Open) -> dict[str, int]:
    """Return the counters of the transaction that is open at the end of the piece."""
    last = len(transactions.commit_lsn) - 1
    if not transactions.running[-1]:
        return {}
    rows = dict(before.rows) if last == 0 else {}
    for name, count in counts.items():
        if transactions.number[count.rows[-1]] == last:
            rows[name] = int(count.number[-1]) + 1
    return rows
