"""Columns of a batch -> columns of its ClickHouse table; DDL of both sides -> applied.

Edge: ClickHouse. Changes are only ever additive, and only `IF NOT EXISTS`: replaying them, or two readers at once, is
harmless. A column that is dropped in Postgres stays here.

Source: https://clickhouse.com/docs/sql-reference/statements/alter/column
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from sink.errors import Exit, FatalError
from sink.insert import column_type
from sink.settings import DEDUPLICATION_WINDOW
from sink.sql import identifier, names, statement

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from sink.clickhouse import ClickHouse
    from sink.settings import Settings

log = structlog.get_logger("outhaul.sink")

_TABLES = ("", "_dead_letters", "_epochs")


def ddl(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield (file name, statement) of all that ClickHouse needs, in order."""
    for name in names("clickhouse"):
        yield (
            name,
            statement(
                name,
                table=settings.clickhouse_table,
                context_type=settings.context_type,
                deduplication_window=DEDUPLICATION_WINDOW,
            ),
        )


def apply(clickhouse: ClickHouse, settings: Settings) -> None:
    """Create what is missing.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    for _, text in ddl(settings):
        clickhouse.command(text)


def check(clickhouse: ClickHouse, settings: Settings) -> None:
    """Make sure that the tables exist and that the event table remembers tokens.

    Raises:
        FatalError: a table is missing, or would not deduplicate.
        PipelineError: ClickHouse does not answer.
    """
    rows = clickhouse.rows(
        "SELECT name, create_table_query FROM system.tables "
        "WHERE database = currentDatabase() AND startsWith(name, {table:String})",
        parameters={"table": settings.clickhouse_table},
    )
    found: dict[str, str] = {name: query for name, query in rows}  # noqa: C416 - says what the columns are
    for suffix in _TABLES:
        if settings.clickhouse_table + suffix not in found:
            raise FatalError(
                f"ClickHouse has no table {settings.clickhouse_table + suffix!r} in {clickhouse.address}",
                todo="Create it with `outhaul setup`",
                exit_code=Exit.CLICKHOUSE_TABLE,
            )
    for suffix in _TABLES[:2]:
        query = found[settings.clickhouse_table + suffix]
        if "Replicated" not in query and "non_replicated_deduplication_window" not in query:
            raise FatalError(
                f"ClickHouse table {settings.clickhouse_table + suffix!r} does not remember insert tokens, "
                "so a retry would repeat rows",
                todo=f"ALTER TABLE {settings.clickhouse_table + suffix} MODIFY SETTING "
                f"non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}",
                exit_code=Exit.CLICKHOUSE_TABLE,
            )


def ensure_columns(clickhouse: ClickHouse, table: str, schema: pa.Schema) -> None:
    """Add the columns that the table lacks, Nullable: rows stored before have no value there.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    rows = clickhouse.rows(
        "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String}",
        parameters={"table": table},
    )
    present = {name for (name,) in rows}
    for field in schema:
        if field.name not in present:
            kind = column_type(field)
            clickhouse.command(
                f"ALTER TABLE {identifier(table)} ADD COLUMN IF NOT EXISTS {identifier(field.name)} {kind}"
            )
            log.info("column_added", table=table, column=field.name, type=kind)
