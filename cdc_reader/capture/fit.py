"""Columns of a batch, types that their table has -> nothing, or an error where values would be changed without a word.

Pure. A column whose type was changed in Postgres keeps its old one in ClickHouse, and ClickHouse makes a number that is
too large for it into another number, and NULL of a text that is none. What it refuses instead becomes a dead letter,
and needs no check.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.cdc_reader.operate.doctor.finding import State
from outhaul.cdc_reader.operate.doctor.type_fit import bare, takes
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.schema import column_type
from outhaul.sink.sql import identifier

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

_CHANGED = ("Int", "Float", "Decimal", "String")


def check_fit(table: str, schema: pa.Schema, types: Mapping[str, str]) -> None:
    """Compare the columns that both have.

    Raises:
        FatalError: the first column that would change values.
    """
    for field in schema:
        wanted, target = column_type(field), types.get(field.name)
        if target is None or not bare(wanted).startswith(_CHANGED):
            continue
        state, trouble = takes(wanted, target)
        if state is State.FAIL:
            raise FatalError(
                f"{table}.{field.name} is {target} in ClickHouse, and the outbox has {wanted} there now: {trouble}",
                todo=f"ALTER TABLE {table} MODIFY COLUMN {identifier(field.name)} {wanted}; then start again. "
                "Nothing is lost: the slot waits",
                exit_code=Exit.CLICKHOUSE_TABLE,
            )
