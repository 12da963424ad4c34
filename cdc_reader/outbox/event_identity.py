"""Columns of the outbox -> SQL for both sides that tells events apart: by the id, and by the event's time.

Pure. An id alone does not identify an event: after TRUNCATE ... RESTART IDENTITY, setval() or the restore of a dump, a
sequence gives its numbers again. Times are compared to the microsecond, or as exactly as ClickHouse's column keeps
them. A row whose time is NULL has the time of its commit in ClickHouse, and the time of one that ClickHouse could not
hold has been corrected there: such a row is identified by its id, type, environment and key. Its other contents are not
part of it, since apps change rows of their outbox, but are compared: if they differ, nobody can tell whether the row
was changed, or is another event.

Source: https://www.postgresql.org/docs/current/sql-truncate.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from outhaul.cdc_reader.capture.column_types import Oid
from outhaul.cdc_reader.capture.pgoutput_messages import POSTGRES_EPOCH_US
from outhaul.cdc_reader.outbox import fingerprint
from outhaul.sink.errors import PoisonError
from outhaul.sink.quoting import clickhouse_identifier, postgres_identifier
from outhaul.sink.timestamps import microseconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outhaul.cdc_reader.capture.pgoutput_messages import Column
    from outhaul.cdc_reader.outbox.table_shape import Shape

_TIME = "event_date_time"
_LASTING, _CHANGING = {"event_type", "environment", "event_key"}, {"event_context"}
# The binary form of a time in Postgres: microseconds since 2000, as eight bytes.
_SEND = {Oid.TIMESTAMPTZ: "timestamptz_send", Oid.TIMESTAMP: "timestamp_send", Oid.DATE: "timestamp_send"}
_DATETIME64 = re.compile(r"DateTime64\((\d+)")
_MICROSECONDS = 6
# Rows with another time are dead letters.
_FIRST, _END = "1900-01-01", "2300-01-01"


def unit_us(kind: str) -> int | None:
    """Return the unit in which a type of ClickHouse keeps times, in microseconds, at least 1; None for other types."""
    found = _DATETIME64.match(kind)
    return 10 ** max(0, _MICROSECONDS - int(found[1])) if found else None


@dataclass(frozen=True, slots=True)
class Identity:
    """What identifies an event of one outbox.

    `time` is the column of its time, None if ClickHouse has no comparable one. ClickHouse keeps times in units of
    `unit_us` microseconds. `contents` are the columns that identify a row without a time, `details` those and what an
    app may change.
    """

    time: Column | None
    unit_us: int
    contents: tuple[Column, ...]
    details: tuple[Column, ...]
    encoding: str

    @classmethod
    def of(cls, shape: Shape, types: Mapping[str, str]) -> Self:
        """Return what identifies an event; `types` are ClickHouse's, by name."""
        unit = unit_us(types.get(_TIME, ""))
        times = [column for column in shape.columns if column.name == _TIME and column.type_oid in _SEND]
        found = [column for column in fingerprint.compared(shape, types) if column.name in shape.readable]
        return cls(
            times[0] if times and unit else None,
            unit or 1,
            tuple(column for column in found if column.name in _LASTING),
            tuple(column for column in found if column.name in _LASTING | _CHANGING),
            shape.encoding,
        )

    @property
    def postgres_has_time(self) -> str:
        """SQL condition: the row has a time that ClickHouse can hold."""
        if self.time is None:
            return "false"
        name = postgres_identifier(self.time.name)
        return f"coalesce({name} >= '{_FIRST}' AND {name} < '{_END}', false)"

    @property
    def postgres_time(self) -> str:
        """SQL for the number of a row's time in Postgres; the row must have one."""
        if self.time is None:
            return "0::bigint"
        name = postgres_identifier(self.time.name)
        if self.unit_us > 1:
            # As ClickHouse rounds: towards 1970.
            return f"trunc(extract(epoch FROM {name}) * {1_000_000 // self.unit_us})::bigint"
        return f"('x' || encode({self._sent}, 'hex'))::bit(64)::bigint"

    @property
    def clickhouse_time(self) -> str:
        """SQL for the number of a row's time in ClickHouse."""
        if self.time is None:
            return "toInt64(0)"
        name = clickhouse_identifier(self.time.name)
        if self.unit_us > 1:
            return f"reinterpretAsInt64({name})"
        return f"(toUnixTimestamp64Micro(toDateTime64({name}, 6, 'UTC')) - {POSTGRES_EPOCH_US})"

    @property
    def postgres_number(self) -> str:
        """SQL for a number that is different for different events, in Postgres."""
        number = "int8send(id::int8)"
        if self.time is not None:
            sent = self._sent if self.unit_us == 1 else f"int8send({self.postgres_time})"
            number += f" || CASE WHEN {self.postgres_has_time} THEN {sent} ELSE ''::bytea END"
        return fingerprint.postgres_number(number)

    @property
    def clickhouse_number(self) -> str:
        """SQL for the same number in ClickHouse."""
        parts = ["toInt64(id)"] + ([self.clickhouse_time] if self.time is not None else [])
        sent = ", ".join(f"reverse(reinterpretAsFixedString({part}))" for part in parts)
        return fingerprint.clickhouse_number(f"concat('', {sent})")

    def postgres_row(self, columns: tuple[Column, ...]) -> str:
        """Return the SQL for the number of some columns of a row in Postgres."""
        return fingerprint.postgres_row(list(columns), self.encoding) if columns else "0::bigint"

    def clickhouse_row(self, columns: tuple[Column, ...]) -> str:
        """Return the SQL for the number of the same columns in ClickHouse."""
        return fingerprint.clickhouse_row(list(columns)) if columns else "toInt64(0)"

    def time_of(self, printed: str) -> int | None:
        """Return the number of a time that Postgres has printed; None if ClickHouse cannot hold it."""
        try:
            us = microseconds(printed, "DateTime64(6)")
        except PoisonError:
            return None
        return int(us / self.unit_us) if self.unit_us > 1 else us - POSTGRES_EPOCH_US

    @property
    def _sent(self) -> str:
        assert self.time is not None
        name, kind = postgres_identifier(self.time.name), Oid(self.time.type_oid)
        return f"{_SEND[kind]}({name}::timestamp)" if kind is Oid.DATE else f"{_SEND[kind]}({name})"
