"""Settings -> table, publication, slot, roles and ClickHouse tables, where they are missing.

Edge: applies the files of `sql/`, in their order; all of them are idempotent. What exists already is left as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from cdc_reader.fence import newest_epoch
from cdc_reader.outbox.due import note_due
from cdc_reader.preflight import check_server, connect
from cdc_reader.slot_care.change import restart
from cdc_reader.slot_care.facts import slot_facts
from cdc_reader.sqlstate import error_of
from sink import schema
from sink.position import NO_LSN
from sink.sql import names, statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sink.clickhouse import ClickHouse
    from sink.settings import Settings

_OF_EACH_TABLE = {"postgres/0001_outbox.sql", "postgres/0002_publication.sql", "postgres/0004_roles.sql"}


def postgres_ddl(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield (file name, statements) of all that Postgres needs, in order; for each captured table."""
    for name in names("postgres"):
        for branch in settings.branches()[: None if name in _OF_EACH_TABLE else 1]:
            schema_name = branch.sql_table.partition(".")[0]
            values = {"table": branch.sql_table, "publication": settings.publication, "slot": settings.slot}
            yield name, statement(name, schema=schema_name, **values)


def print_sql(settings: Settings) -> Iterator[str]:
    """Yield what a DBA would apply by hand: psql for Postgres, clickhouse-client for ClickHouse."""
    for name, text in [*postgres_ddl(settings), *schema.ddl(settings)]:
        yield f"-- {name}\n{text.strip()}\n"


def apply_postgres(settings: Settings, tell: Callable[[str], None]) -> None:
    """Create what is missing in Postgres; `tell` hears each file's name and the server's notices.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    with connect(settings.postgres_dsn.get_secret_value()) as conn:
        check_server(conn)
        conn.add_notice_handler(lambda notice: tell(notice.message_primary or ""))
        for name, text in postgres_ddl(settings):
            try:
                conn.execute(text.encode())
            except psycopg.Error as error:
                raise error_of(
                    error.sqlstate, f"{name}: {error}", slot=settings.slot, publication=settings.publication
                ) from error
            tell(name)


def apply_clickhouse(clickhouse: ClickHouse, settings: Settings, tell: Callable[[str], None]) -> None:
    """Create what is missing in ClickHouse.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    for name, text in schema.ddl(settings):
        clickhouse.command(text)
        tell(name)


def note_if_skipping(clickhouse: ClickHouse, settings: Settings) -> None:
    """Note that a heal is due where a pipeline that has run before is about to get a new slot.

    Raises:
        PipelineError: a server refuses or does not answer.
    """
    with connect(settings.postgres_dsn.get_secret_value()) as conn:
        is_there = slot_facts(conn, settings) is not None
    if not is_there and newest_epoch(clickhouse, settings) is not None:
        note_due(clickhouse, settings, NO_LSN)


def rebind(clickhouse: ClickHouse, settings: Settings) -> str:
    """Say that the source goes on in the history that the slot belongs to now; return what was bound to what.

    Raises:
        FatalError: the slot cannot be used, or positions would mean two things; the message says what goes on.
        PipelineError: Postgres or ClickHouse refuses or does not answer.
    """
    at = restart(settings, clickhouse)
    return f"source {settings.source} goes on at {at} of this server"
