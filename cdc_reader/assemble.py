"""Decoded rows of one table -> batches: those ClickHouse lacks, and dead letters for those it cannot hold.

Pure. Adds the cdc_* columns, which make every stored row say where it came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from sink.batch import Batch, pack
from sink.position import Lsn, Position
from sink.quarantine import DEAD_LETTER_SCHEMA

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from cdc_reader.decode import Segment
    from cdc_reader.held import Held

_CDC_FIELDS = [DEAD_LETTER_SCHEMA.field(name) for name in ("cdc_lsn", "cdc_ordinal", "cdc_committed_at")]


@dataclass(frozen=True, slots=True)
class Assembled:
    """A batch, its columns (None for dead letters, which never change), and when each row was committed (Unix µs)."""

    batch: Batch
    schema: pa.Schema | None
    committed_at_us: npt.NDArray[np.int64]


def assemble(segment: Segment, held: Held, *, source: str, dead_letters: str) -> list[Assembled]:
    """Build the batches of one segment; none when ClickHouse holds all of it."""
    segment = segment.take(held.missing(segment.lsn, segment.ordinal))
    if not len(segment.lsn):
        return []
    batches = []
    good = segment.take(~segment.refused)
    if len(good.lsn):
        records = pa.RecordBatch.from_arrays(
            [*good.columns.columns, *_cdc_columns(good)], schema=pa.schema([*good.columns.schema, *_CDC_FIELDS])
        )
        batch = pack(source, good.table, records, *_ends(good))
        batches.append(Assembled(batch, good.columns.schema, good.committed_at_us))
    bad = segment.take(segment.refused)
    if len(bad.lsn):
        rows = pa.array([text.encode() for _, text, _ in bad.refused_rows], pa.binary())
        reasons = pa.array([reason.encode() for _, _, reason in bad.refused_rows], pa.binary())
        records = pa.RecordBatch.from_arrays([rows, reasons, *_cdc_columns(bad)], schema=DEAD_LETTER_SCHEMA)
        batch = pack(source, dead_letters, records, *_ends(bad))
        batches.append(Assembled(batch, None, bad.committed_at_us))
    return batches


def _cdc_columns(segment: Segment) -> list[pa.Array]:
    return [
        pa.array(segment.lsn, pa.uint64()),
        pa.array(segment.ordinal, pa.uint64()),
        pa.array(segment.committed_at_us, pa.timestamp("us", "UTC")),
    ]


def _ends(segment: Segment) -> tuple[Position, Position]:
    first = Position(Lsn(int(segment.lsn[0])), int(segment.ordinal[0]))
    return first, Position(Lsn(int(segment.lsn[-1])), int(segment.ordinal[-1]))
