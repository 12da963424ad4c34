"""Insert messages of one relation -> an Arrow record batch, and the rows whose values are out of ClickHouse's range.

Pure. The stream, in binary and in text form, and copies of the outbox all use `build`, so a value becomes the same
bytes on each way. No value is clamped: a row with a value out of range is refused, and returned whole as Postgres
prints it.

Source: https://clickhouse.com/docs/sql-reference/data-types/datetime64
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from outhaul.cdc_reader.capture import binary_cells, text_cells
from outhaul.cdc_reader.capture.cells import Cells, walk
from outhaul.cdc_reader.capture.column_types import IGNORED, Oid, column_type, schema
from outhaul.cdc_reader.capture.pg_text import printed, row_json
from outhaul.sink.errors import FatalError, PipelineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outhaul.cdc_reader.capture.frame import Bools, Frames, Ints
    from outhaul.cdc_reader.capture.pgoutput_messages import Column, Relation

_BINARY_TYPES = frozenset(Oid)
_NAN = b"NaN"


class UnsupportedBinary(PipelineError):  # noqa: N818 -- not a failure: the reader continues with text tuples
    """A column has a type whose binary form is not decoded here: connect again with `binary 'false'`."""

    def __init__(self, type_oid: int, column: str) -> None:
        """Name the column and the oid of its type."""
        super().__init__(f"outhaul does not decode the binary form of column {column} (type oid {type_oid})")
        self.type_oid = type_oid
        self.column = column

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.type_oid, self.column)


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


def decode_rows(frames: Frames, rows: Ints, relation: Relation, *, binary: bool) -> Rows:
    """Decode the Insert messages `rows` of a piece, which are all of this relation.

    Raises:
        FrameError: a message violates the protocol, or a value the form of its type.
        UnsupportedBinary: the binary form of a column's type is not in `Oid`.
        FatalError: the relation has no column to capture.
    """
    return build(relation.columns, walk(frames, rows, relation, binary=binary), binary=binary)


def build(columns: Sequence[Column], cells: Sequence[Cells], *, binary: bool) -> Rows:
    """Decode the cells of columns; leave out the columns in `IGNORED`.

    Raises:
        FrameError: a value has not the form of its type.
        UnsupportedBinary: the binary form of a column's type is not in `Oid`.
        FatalError: there is no column to capture.
    """
    kept = [(column, part) for column, part in zip(columns, cells, strict=True) if column.name not in IGNORED]
    if not kept:
        raise FatalError("a captured table has no columns", todo="Take it out of the publication")
    if binary:
        for column, _ in kept:
            if column.type_oid not in _BINARY_TYPES:
                raise UnsupportedBinary(column.type_oid, column.name)
    decode = binary_cells.decode if binary else text_cells.decode
    coded = [_finite(decode(part, column.type_oid), column) for column, part in kept]
    refused = np.zeros(len(kept[0][1].start), np.bool_)
    for one in coded:
        if one.refused is not None:
            refused |= one.refused
    return Rows(
        pa.RecordBatch.from_arrays([one.array for one in coded], schema=schema(tuple(column for column, _ in kept))),
        refused,
        tuple(_refuse(int(row), kept, coded, binary=binary) for row in np.flatnonzero(refused)),
    )


def _finite(coded: binary_cells.DecodedColumn, column: Column) -> binary_cells.DecodedColumn:
    """Refuse NaN in a column that becomes a Decimal."""
    if column.type_oid != Oid.NUMERIC or column_type(column.type_oid, column.type_modifier) == column_type(Oid.TEXT):
        return coded
    odd = pc.fill_null(pc.equal(coded.array, _NAN), fill_value=False)
    if not pc.any(odd).as_py():
        return coded
    refused = odd.to_numpy(zero_copy_only=False)
    return binary_cells.DecodedColumn(pc.if_else(odd, pa.scalar(None, pa.binary()), coded.array), refused)


def _refuse(
    row: int, kept: Sequence[tuple[Column, Cells]], coded: Sequence[binary_cells.DecodedColumn], *, binary: bool
) -> RefusedRow:
    values = {column.name: _printed(part.raw(row), column, binary=binary) for column, part in kept}
    reasons = [
        f"{column.name}: {(values[column.name] or b'').decode('ascii')} is outside what "
        f"{column_type(column.type_oid, column.type_modifier).clickhouse} holds"
        for (column, _), one in zip(kept, coded, strict=True)
        if one.refused is not None and one.refused[row]
    ]
    return RefusedRow(row, row_json(values), "; ".join(reasons))


def _printed(raw: bytes | None, column: Column, *, binary: bool) -> bytes | None:
    return printed(raw, column.type_oid) if binary and raw is not None else raw
