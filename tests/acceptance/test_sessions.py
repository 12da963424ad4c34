"""Roles whose settings stand in the way of a session of outhaul: it brings its own."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from outhaul.cdc_reader.outbox.snapshot import now
from outhaul.cdc_reader.postgres.connect import connect_primary, open_stream
from outhaul.cdc_reader.postgres.session_settings import statement
from outhaul.sink.errors import TransientError
from tests import roles
from tests.acceptance.commands import asked, outhaul
from tests.conftest import started, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import World

SHORT = dict.fromkeys(
    (
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
        "transaction_timeout",
    ),
    "1s",
)
ODD = {
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "quote_all_identifiers": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "client_min_messages": "error",
    "search_path": "nowhere",
}
LOSSES = ("missing", "extra", "differing", "repeated")


def bend(world: World, settings: dict[str, str]) -> None:
    """Let new sessions of owner and reader begin with these settings in this database."""
    owner = world.conn.info.user
    database = world.conn.info.dbname
    for name, value in settings.items():
        if name == "transaction_timeout" and world.conn.info.server_version < 170000:
            continue
        for role in (owner, roles.READER):
            world.conn.execute(f"ALTER ROLE {role} IN DATABASE {database} SET {name} = '{value}'")


def shown(session: Any) -> dict[str, str]:
    """Return the settings of a session, by name: of an ordinary one, or of one for replication."""
    names = "SELECT string_agg(name || '=' || setting, ';') FROM pg_settings"
    text = session.fetch_value(names) if hasattr(session, "fetch_value") else session._execute(names).get_value(0, 0)
    pairs = (pair.partition("=") for pair in (text if isinstance(text, str) else text.decode()).split(";"))
    return {name: value for name, _, value in pairs}


def test_no_setting_of_a_role_remains_in_a_session(world: World) -> None:
    bend(world, {**ODD, **SHORT})
    with connect_primary(world.settings) as conn, closing(open_stream(world.stream)) as link:
        for found in (shown(conn), shown(link)):
            kept = {name: found.get(name) for name, value in ODD.items() if found.get(name) == value}
            assert kept == {}
            assert {found.get(name, "0") for name in SHORT} == {"0"}
            assert found["search_path"] == "pg_catalog, nowhere"
            assert found["row_security"] == "off"
        assert conn.fetch_value("SELECT timestamptz '2026-01-31 12:00+00'").isoformat() == "2026-01-31T12:00:00+00:00"


def test_old_releases_are_not_asked_for_settings_that_they_do_not_have() -> None:
    assert "transaction_timeout" not in statement(160000)
    assert "transaction_timeout" in statement(170000)
    assert "idle_session_timeout" not in statement(130000)


def test_everything_runs_for_a_role_with_odd_settings_and_short_timeouts(make_world: Callable[..., World]) -> None:
    world = make_world(setup=False)
    bend(world, {**ODD, **dict.fromkeys(SHORT, "200ms")})
    outhaul(world, "setup")
    everything(started(world), 20_000)


@pytest.mark.long
def test_a_million_rows_are_copied_under_timeouts_of_a_second(running: World) -> None:
    bend(running, SHORT)
    everything(running, 1_000_000)


def everything(world: World, rows: int) -> None:
    """Run each command that holds a snapshot or a lock, or reads a whole table."""
    world.insert(10)
    world.assert_once_each()
    world.pipeline.stop("reader")
    world.insert(rows)
    done = asked(world, "slot", "reset", "--recreate", "--yes")
    assert done["stored"] == rows
    world.clickhouse.command("SYSTEM START MERGES event_log")
    world.clickhouse.command("ALTER TABLE event_log DELETE WHERE id % 2 = 0 SETTINGS mutations_sync = 1")
    assert world.stored() == rows // 2 + 5
    world.pipeline.start("reader")
    until(lambda: (state := world.reader_state()) and state.phase == "streaming", what="reader streams")
    assert asked(world, "backfill")["copied"] == rows // 2 + 5
    found = asked(world, "verify", "--deep")
    assert found["rows"] == rows + 10
    assert [found[kind] for kind in LOSSES] == [0, 0, 0, 0]
    assert asked(world, "prune", "--older-than", "0s", "--yes")["removed"] == rows + 10


def test_a_snapshot_whose_session_was_ended_is_named(world: World) -> None:
    with now(world.settings) as line:
        world.conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND state = 'idle in transaction'"
        )

        def refused() -> TransientError | None:
            try:
                with line.connect():
                    return None
            except TransientError as error:
                return error

        error = until(refused, what="the snapshot is gone")
    assert "is gone, since the session that held it has ended" in error.message
    assert "''" not in str(error)
