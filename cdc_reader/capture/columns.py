"""Insert messages of one relation -> an Arrow record batch, and the rows whose values are out of ClickHouse's range.

Pure. The stream, in binary and in text form, and copies of the outbox all use `build`, so a value becomes the same
bytes on each way. One column may have values in both forms. No value is clamped: a row with a value out of range is
refused, and returned whole as Postgres prints it.

Source: https://clickhouse.com/docs/sql-reference/data-types/datetime64
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from outhaul.cdc_reader.capture import binary_cells, text_cells
from outhaul.cdc_reader.capture.cells import Cells, walk
from outhaul.cdc_reader.capture.column_types import IGNORED, Oid, column_type, schema
from outhaul.cdc_reader.capture.pg_text import printed, row_json
from outhaul.cdc_reader.postgres.errors import UnsupportedBinary
from outhaul.sink.errors import FatalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outhaul.cdc_reader.capture.frame import Bools, Frames, Ints
    from outhaul.cdc_reader.capture.pgoutput_messages import Column, Relation

_BINARY_TYPES = frozenset(Oid)
_NAN = b"NaN"


class RefusedRow(NamedTuple):
    """A row with a value that ClickHouse cannot store: its index, the whole row as JSON, and the reason."""

    row: int
    row_json: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Decoded rows of one relation; `columns` also has the refused rows, with NULL for each value out of range."""

    columns: pa.RecordBatch
    refused: Bools
    refused_rows: tuple[RefusedRow, ...]


def decode_rows(frames: Frames, rows: Ints, relation: Relation) -> Rows:
    """Decode the Insert messages `rows` of a piece, which are all of this relation.

    Raises:
        FrameError: a message violates the protocol, or a value the form of its type.
        UnsupportedBinary: a value is in a binary form that is not decoded here.
        FatalError: the relation has no column to capture.
    """
    return build(relation.columns, walk(frames, rows, relation))


def build(columns: Sequence[Column], cells: Sequence[Cells]) -> Rows:
    """Decode the cells of columns; leave out the columns in `IGNORED`.

    Raises:
        FrameError: a value has not the form of its type.
        UnsupportedBinary: a value is in a binary form that is not decoded here.
        FatalError: there is no column to capture.
    """
    kept = [(column, part) for column, part in zip(columns, cells, strict=True) if column.name not in IGNORED]
    if not kept:
        raise FatalError("a captured table has no columns", todo="Take it out of the publication")
    coded = [_finite(_decode(part, column), column) for column, part in kept]
    refused = np.zeros(len(kept[0][1].start), np.bool_)
    for one in coded:
        if one.refused is not None:
            refused |= one.refused
    return Rows(
        pa.RecordBatch.from_arrays([one.array for one in coded], schema=schema(tuple(column for column, _ in kept))),
        refused,
        tuple(_refuse(int(row), kept, coded) for row in np.flatnonzero(refused)),
    )


def _decode(cells: Cells, column: Column) -> binary_cells.DecodedColumn:
    """Decode each value from the form in which it was received."""
    if cells.text is None:
        return _from_binary(cells, column)
    if (cells.text == cells.valid).all():
        return text_cells.decode(cells, column.type_oid)
    parts = (
        _from_binary(cells.only(~cells.text), column),
        text_cells.decode(cells.only(cells.text), column.type_oid),
    )
    masks = [part.refused for part in parts if part.refused is not None]
    refused = np.logical_or.reduce(masks) if masks else None
    return binary_cells.DecodedColumn(pc.coalesce(*(part.array for part in parts)), refused)


def _from_binary(cells: Cells, column: Column) -> binary_cells.DecodedColumn:
    if column.type_oid in _BINARY_TYPES:
        return binary_cells.decode(cells, column.type_oid)
    if cells.valid.any():
        raise UnsupportedBinary(
            f"outhaul does not decode the binary form of column {column.name} (type oid {column.type_oid})"
        )
    return text_cells.decode(cells, column.type_oid)


def _finite(coded: binary_cells.DecodedColumn, column: Column) -> binary_cells.DecodedColumn:
    """Refuse NaN in a column that becomes a Decimal."""
    if column.type_oid != Oid.NUMERIC or column_type(column.type_oid, column.type_modifier) == column_type(Oid.TEXT):
        return coded
    odd = pc.fill_null(pc.equal(coded.array, _NAN), fill_value=False)
    if not pc.any(odd).as_py():
        return coded
    refused = odd.to_numpy(zero_copy_only=False)
    return binary_cells.DecodedColumn(pc.if_else(odd, pa.scalar(None, pa.binary()), coded.array), refused)


def _refuse(row: int, kept: Sequence[tuple[Column, Cells]], coded: Sequence[binary_cells.DecodedColumn]) -> RefusedRow:
    values = {column.name: _printed(part, row, column.type_oid) for column, part in kept}
    reasons = [
        f"{column.name}: {(values[column.name] or b'').decode('ascii')} is outside what "
        f"{column_type(column.type_oid, column.type_modifier).clickhouse} holds"
        for (column, _), one in zip(kept, coded, strict=True)
        if one.refused is not None and one.refused[row]
    ]
    return RefusedRow(row, row_json(values), "; ".join(reasons))


def _printed(cells: Cells, row: int, type_oid: int) -> bytes | None:
    raw = cells.raw(row)
    if raw is None or (cells.text is not None and cells.text[row]):
        return raw
    return printed(raw, type_oid)
