"""`outhaul setup` notes how far it has come, and an older release of it leaves a newer schema as it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from outhaul.cdc_reader.operate import setup
from outhaul.sink import schema, sql
from tests.acceptance.commands import outhaul_here

if TYPE_CHECKING:
    from tests.conftest import World

_COLUMNS = (
    "SELECT table, name, type FROM system.columns WHERE database = currentDatabase() ORDER BY table, name",
    "SELECT name, comment FROM system.tables WHERE database = currentDatabase() ORDER BY name",
)


def comment(world: World) -> str:
    return str(world.sql("SELECT obj_description(oid, 'pg_publication') FROM pg_publication"))


def test_both_sides_say_how_far_they_have_been_set_up(world: World) -> None:
    assert sql.number_in(comment(world)) == sql.schema_number("postgres")
    assert schema.applied(world.clickhouse, world.settings) == sql.schema_number("clickhouse")
    code, printed, _ = outhaul_here(world.env, "setup")
    assert code == 0
    assert sql.number_in(comment(world)) == sql.schema_number("postgres")
    # Files that are applied by hand leave the same numbers.
    applied = re.findall(r"^(?:postgres|clickhouse)/\d{4}_\w+\.sql$", printed, re.MULTILINE)
    assert applied
    by_hand = "".join(setup.print_sql(world.settings))
    assert all(name in by_hand for name in applied)


@pytest.mark.parametrize("side", ["Postgres", "ClickHouse"])
def test_an_older_release_refuses_a_newer_schema_on_either_side_and_changes_nothing(world: World, side: str) -> None:
    newer = f"outhaul schema {sql.schema_number(side.lower()) + 1}"
    if side == "Postgres":
        world.conn.execute(f"COMMENT ON PUBLICATION {world.settings.publication} IS '{newer}'".encode())
    else:
        world.clickhouse.command(f"ALTER TABLE event_log_epochs MODIFY COMMENT '{newer}'")
    # What a newer release might have taken away, this one would make again.
    world.conn.execute("DROP FUNCTION outhaul_emit")
    before = [list(world.clickhouse.rows(query)) for query in _COLUMNS]
    code, _, error = outhaul_here(world.env, "setup")
    assert code == 1
    assert f"{side} was set up by a newer outhaul" in error
    assert "Type `outhaul setup` of the newer release" in error
    assert world.sql("SELECT to_regproc('outhaul_emit')") is None
    assert [list(world.clickhouse.rows(query)) for query in _COLUMNS] == before


def test_a_comment_of_ones_own_is_left_as_it_is(world: World) -> None:
    world.conn.execute(f"COMMENT ON PUBLICATION {world.settings.publication} IS 'of team seven'".encode())
    assert outhaul_here(world.env, "setup")[0] == 0
    assert comment(world) == "of team seven"


def test_files_have_numbers_of_their_own_and_the_last_one_notes_them() -> None:
    for folder in ("postgres", "clickhouse"):
        *files, last = sql.names(folder)
        numbers = [int(name.removeprefix(f"{folder}/")[:4]) for name in files]
        assert numbers == list(range(1, len(files) + 1))
        assert last.endswith(sql.MARK)
        assert sql.schema_number(folder) == len(files)
