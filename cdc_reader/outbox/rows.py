"""Ids of outbox rows -> batches of these rows, as the stream would make them, except for their positions.

Edge: a binary COPY from Postgres. The position of a copied row is (the line's LSN for copies, its id); a negative id
is taken for the number of 64 bits without a sign that has the same bits. It is the same in every attempt with one line,
and differs from the position of every streamed row.

Source: https://www.postgresql.org/docs/current/sql-copy.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from outhaul.cdc_reader.capture.assemble import assembly_for
from outhaul.cdc_reader.capture.column_types import Oid
from outhaul.cdc_reader.capture.columns import build
from outhaul.cdc_reader.capture.decode import Segment
from outhaul.cdc_reader.capture.frame import Run
from outhaul.cdc_reader.capture.pgoutput_messages import Column
from outhaul.cdc_reader.capture.stored_positions import NOTHING_STORED
from outhaul.cdc_reader.outbox.copy_cells import is_trailer, strip_header, walk
from outhaul.cdc_reader.outbox.table_shape import is_binary, printed
from outhaul.sink.quoting import postgres_identifier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.cdc_reader.capture.assemble import Assembled
    from outhaul.cdc_reader.capture.frame import Ints
    from outhaul.cdc_reader.outbox.table_shape import Shape
    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.position import Lsn
    from outhaul.sink.settings import Outbox

_PIECE_BYTES = 4 << 20
_ID = "id"
_INTEGERS: dict[int, type[np.signedinteger[Any]]] = {Oid.INT2: np.int16, Oid.INT4: np.int32, Oid.INT8: np.int64}

# The table does not have the time of the commit. The event's time is used instead, if it is plausible.
_COMMITTED_AT = """(extract(epoch from CASE WHEN event_date_time BETWEEN '1970-01-01' AND now() + interval '1 day'
    THEN event_date_time ELSE now() END) * 1000000)::bigint"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Ids to copy, ascending; `whole` means that the table has no other id between the first and the last."""

    ids: Ints
    whole: bool


def batches(
    conn: Connection, shape: Shape, wanted: Wanted, lsn: Lsn, outbox: Outbox, table: str
) -> Iterator[Assembled]:
    """Read rows and yield them as batches within the limits of the settings.

    Args:
        conn: a connection that sees the table's share.
        shape: shape of the outbox.
        wanted: ids of the rows.
        lsn: the line's LSN for copies.
        outbox: names and settings.
        table: ClickHouse table for the rows.

    Raises:
        PipelineError: Postgres refuses or does not answer, or a value has not the form of its type.
    """
    assembly, settings = assembly_for(outbox, NOTHING_STORED), outbox.settings
    rows = size = 0
    for run in _runs(conn, _statement(shape, wanted), min(_PIECE_BYTES, settings.batch_max_bytes)):
        rows += len(run.lengths)
        # As the stream counts: as Postgres sends the rows. Packed rows may be a small part of what ClickHouse unpacks.
        size += len(run.data)
        assembly.add(_segment(run, shape, lsn, table))
        if rows >= settings.batch_max_rows or size >= settings.batch_max_bytes:
            yield from assembly.finish()
            rows = size = 0
    yield from assembly.finish()


def _statement(shape: Shape, wanted: Wanted) -> str:
    """Return the COPY statement. COPY binds no parameters; the ids are integers."""
    names = [(postgres_identifier(column.name), is_binary(column)) for column in shape.columns]
    columns = [name if is_decoded else printed(name) for name, is_decoded in names]
    if wanted.whole:
        which = f"id BETWEEN {wanted.ids[0]} AND {wanted.ids[-1]}"
    else:
        which = f"id = ANY('{{{','.join(map(str, wanted.ids.tolist()))}}}'::bigint[])"
    # In the order of the positions: a batch is looked up between its first position and its last.
    order = "id < 0, id" if wanted.ids[0] < 0 <= wanted.ids[-1] else "id"
    query = (
        f"SELECT {', '.join(columns)}, {_COMMITTED_AT} FROM {shape.quoted_table} "
        f"WHERE {which} AND {shape.condition} ORDER BY {order}"
    )
    return f"COPY ({query}) TO STDOUT (FORMAT binary)"


def _runs(conn: Connection, statement: str, piece_bytes: int) -> Iterator[Run]:
    """Execute the COPY and yield runs of rows; each row is one CopyData message."""
    run, first = Run(), True
    for chunk in conn.copy(statement):
        message = chunk
        if first:
            message, first = strip_header(message), False
        if not message or is_trailer(message):
            continue
        run.data += message
        run.lengths.append(len(message))
        if len(run.data) >= piece_bytes:
            yield run
            run = Run()
    if run.lengths:
        yield run


def _segment(run: Run, shape: Shape, lsn: Lsn, table: str) -> Segment:
    # A column whose binary form is not decoded is read as text, and decoded as text.
    columns = [
        *(column if is_binary(column) else Column(column.name, Oid.TEXT) for column in shape.columns),
        Column("outhaul committed at", Oid.INT8),
    ]
    cells = walk(run, len(columns))
    ids = cells[[column.name for column in columns].index(_ID)]
    key = columns[[column.name for column in columns].index(_ID)]
    ordinal = ids.numbers(_INTEGERS[key.type_oid]).astype(np.int64).astype(np.uint64)
    decoded = build(columns[:-1], cells[:-1])
    return Segment(
        table=table,
        columns=decoded.columns,
        lsn=np.full(len(ordinal), int(lsn), np.uint64),
        ordinal=ordinal,
        committed_at_us=cells[-1].numbers(np.int64),
        refused=decoded.refused,
        refused_rows=decoded.refused_rows,
    )
