"""Decoded rows, piece by piece -> batches: the rows that ClickHouse lacks, and dead letters for rows it cannot store.

Pure. Adds the cdc_* columns, which give the origin of every stored row. Rows are packed as soon as they are decoded, so
a batch of any size needs only its packed bytes in memory.

Source: docs/adr/0001-clickhouse-is-the-checkpoint.md, docs/adr/0005-rows-gather-in-the-servers-send-buffer.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from outhaul.cdc_reader.capture import arrow
from outhaul.sink.batch import Batch, Packer
from outhaul.sink.position import Lsn, Position
from outhaul.sink.quarantine import DEAD_LETTER_SCHEMA

if TYPE_CHECKING:
    import numpy.typing as npt

    from outhaul.cdc_reader.capture.decode import Segment
    from outhaul.cdc_reader.capture.stored_positions import StoredPositions
    from outhaul.sink.settings import Outbox

_CDC_FIELDS = [DEAD_LETTER_SCHEMA.field(name) for name in ("cdc_lsn", "cdc_ordinal", "cdc_committed_at")]


@dataclass(frozen=True, slots=True)
class Assembled:
    """A batch, its columns (None for dead letters: they never change), and the commit time of each row (Unix µs)."""

    batch: Batch
    schema: pa.Schema | None
    committed_at_us: npt.NDArray[np.int64]


class _Open:
    """A batch that may still grow: its packer, the columns of the outbox, and the commit times of its rows."""

    def __init__(self, packer: Packer, schema: pa.Schema | None) -> None:
        self.packer = packer
        self.schema = schema
        self._committed_at_us: list[npt.NDArray[np.int64]] = []

    def add(self, records: pa.RecordBatch, segment: Segment) -> None:
        self.packer.add(records, *_ends(segment))
        self._committed_at_us.append(segment.committed_at_us)

    def finish(self) -> Assembled:
        return Assembled(self.packer.finish(), self.schema, np.concatenate(self._committed_at_us))


class Assembly:
    """The batches that fill, one for each table; if the columns of a table change, another batch begins."""

    def __init__(self, held: StoredPositions, *, source: str, events_table: str, dead_letters: str) -> None:
        """Start without a batch.

        Args:
            held: stored positions of the outbox's rows; these rows are left out.
            source: name of the pipeline.
            events_table: ClickHouse table for the events of the outbox.
            dead_letters: ClickHouse table for rows that cannot be stored in `events_table`.
        """
        self._held = held
        self._source = source
        self._events_table = events_table
        self._dead_letters = dead_letters
        self._open: dict[str, _Open] = {}
        self._full: list[Assembled] = []

    def add(self, segment: Segment) -> int:
        """Append the rows of a segment that ClickHouse lacks; return how many rows it has stored already."""
        rows = len(segment)
        segment = segment.take(self._held.missing(segment.lsn, segment.ordinal))
        good = segment.take(~segment.refused)
        if len(good):
            schema = good.columns.schema
            batch = self._batch(good.table, pa.schema([*schema, *_CDC_FIELDS]), schema)
            columns = [*good.columns.columns, *_cdc_columns(good)]
            batch.add(pa.RecordBatch.from_arrays(columns, schema=batch.packer.schema), good)
        bad = segment.take(segment.refused)
        if len(bad):
            texts = ([text for _, text, _ in bad.refused_rows], [reason for _, _, reason in bad.refused_rows])
            columns = [arrow.texts([text.encode() for text in one]) for one in texts]
            records = pa.RecordBatch.from_arrays([*columns, *_cdc_columns(bad)], schema=DEAD_LETTER_SCHEMA)
            self._batch(self._dead_letters, DEAD_LETTER_SCHEMA, None).add(records, bad)
        return rows - len(segment)

    @property
    def packed_bytes(self) -> int:
        """Size of all batches together, in bytes."""
        full = sum(len(one.batch.payload) for one in self._full)
        return full + sum(batch.packer.packed_bytes for batch in self._open.values())

    def finish(self) -> list[Assembled]:
        """Return all batches, each in stream order, and start again without a batch."""
        finished = [*self._full, *(batch.finish() for batch in self._open.values())]
        self._full, self._open = [], {}
        return finished

    def _batch(self, table: str, packed: pa.Schema, schema: pa.Schema | None) -> _Open:
        batch = self._open.get(table)
        if batch is not None and not batch.packer.schema.equals(packed, check_metadata=True):
            self._full.append(self._open.pop(table).finish())
            batch = None
        if batch is None:
            batch = self._open[table] = _Open(Packer(self._source, table, packed, self._events_table), schema)
        return batch


def assembly_for(outbox: Outbox, held: StoredPositions) -> Assembly:
    """Begin an assembly for the rows of one outbox, leaving out the stored positions `held`."""
    return Assembly(
        held,
        source=outbox.settings.source,
        events_table=outbox.clickhouse_table,
        dead_letters=outbox.dead_letters_table,
    )


def _cdc_columns(segment: Segment) -> list[pa.Array]:
    return [
        arrow.numbers(segment.lsn, pa.uint64()),
        arrow.numbers(segment.ordinal, pa.uint64()),
        arrow.numbers(segment.committed_at_us, pa.timestamp("us", "UTC")),
    ]


def _ends(segment: Segment) -> tuple[Position, Position]:
    first = Position(Lsn(int(segment.lsn[0])), int(segment.ordinal[0]))
    return first, Position(Lsn(int(segment.lsn[-1])), int(segment.ordinal[-1]))
