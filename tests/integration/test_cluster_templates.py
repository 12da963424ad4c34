"""What stands in sql/clickhouse/cluster makes the same tables; tried on one server, for want of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sink.settings import DEDUPLICATION_WINDOW
from sink.sql import names, statement

if TYPE_CHECKING:
    from tests.conftest import World

_COLUMNS = (
    "SELECT name, type, default_kind, default_expression, compression_codec FROM system.columns "
    "WHERE database = currentDatabase() AND table = {table:String} ORDER BY name"
)
_TABLE = (
    "SELECT engine, partition_key, sorting_key, engine_full FROM system.tables "
    "WHERE database = currentDatabase() AND name = {table:String}"
)
_TABLES = ("", "_dead_letters", "_epochs", "_pauses")


@pytest.fixture
def copied(world: World) -> World:
    """A pipeline, and beside its tables those of the templates, on one server."""
    for name in names("clickhouse/cluster"):
        values = {
            "table": "copy",
            "cluster": "none",
            "context_type": "String",
            "deduplication_window": DEDUPLICATION_WINDOW,
        }
        for part in statement(name, **values).split(";\n"):
            if "Distributed" not in part and "CREATE" in part:
                assert "ON CLUSTER none" in part
                assert "Replicated" in part
                alone = part.replace(" ON CLUSTER none", "").replace("Replicated", "")
                world.clickhouse.command(alone.replace(" replicated_dedup", " non_replicated_dedup"))
    return world


def test_a_cluster_s_tables_are_those_of_one_server(copied: World) -> None:
    for suffix in _TABLES:
        for query in (_COLUMNS, _TABLE):
            plain, made = (
                copied.clickhouse.rows(query, parameters={"table": f"{table}{suffix}"})
                for table in ("event_log", "copy")
            )
            assert plain
            assert list(made) == list(plain), suffix
