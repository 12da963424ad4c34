"""Names that need quotes in a statement: keywords, upper case, dashes, digits at the front."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from outhaul.sink.quoting import clickhouse_identifier, postgres_table
from tests.acceptance.commands import outhaul
from tests.conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import World


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("table", "stored", "publication"), [("order.select", "table", "user"), ("My-Shop.Out-Box", "2024", "1st")]
)
def test_any_name_that_the_settings_take_works_in_every_command(
    make_world: Callable[..., World], table: str, stored: str, publication: str
) -> None:
    names = {"table": table, "clickhouse_table": stored, "publication": publication}
    world = make_world(setup=False, slot=f"1st_slot_{os.getpid()}", **names)
    quoted = postgres_table(table)
    world.conn.execute(f"CREATE SCHEMA {quoted.partition('.')[0]}".encode())
    outhaul(world, "setup")
    outhaul(world, "setup")
    world.pipeline.start("worker", "reader")
    insert = (
        f"INSERT INTO {quoted} (event_type, environment, event_context, event_date_time) "
        "SELECT 'tested', 'test', '{}', now() - interval '9 days' FROM generate_series(1, 3)"
    )
    world.conn.execute(insert.encode())

    def count() -> int:
        return int(world.ch(f"SELECT count() FROM {clickhouse_identifier(stored)}"))

    until(lambda: count() == 3, what="the events are stored")
    assert json.loads(outhaul(world, "status", "--json"))["rows"] == 3
    assert "0 fail" in outhaul(world, "doctor")
    for command in (
        "verify --deep",
        "backfill",
        "dlq list",
        "pause",
        "resume",
        "slot show",
        "replay --since 10d --dry-run",
        "prune --older-than 7d --dry-run",
        "slot reset --recreate --yes",
    ):
        outhaul(world, *command.split())
    assert f"{quoted} " in outhaul(world, "setup", "--print-sql")
    # The reader stands by while the slot is created again, and streams from the new one.
    world.conn.execute(insert.encode())
    until(lambda: count() == 6, what="the events after the reset are stored")
    outhaul(world, "prune", "--older-than", "7d", "--yes")
    assert world.sql(f"SELECT count(*) FROM {quoted}") == 0
