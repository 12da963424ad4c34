"""The functions that setup leaves in Postgres: a call is an event, and so is a change of a table with the trigger."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psycopg
import pytest

from outhaul.cdc_reader.operate.setup import apply_postgres

if TYPE_CHECKING:
    from tests.conftest import World

CALL = "SELECT outhaul_emit('user_created', '{\"id\": 1}', 'test', event_key => %s)"


def test_a_call_is_an_event_and_a_second_one_with_its_key_is_ignored(world: World) -> None:
    assert [world.sql(CALL, key) for key in ("k", "k", None, None)] == [True, False, True, True]
    assert world.sql("SELECT count(*) FROM outbox") == 3
    row = world.conn.execute("SELECT event_type, environment, event_context, metadata_version FROM outbox LIMIT 1")
    assert row.fetchone() == ("user_created", "test", {"id": 1}, 1)


def test_every_change_of_a_table_is_an_event_without_the_columns_that_are_left_out(running: World) -> None:
    running.conn.execute("CREATE TABLE users (id int, email text, password_hash text)")
    running.conn.execute(
        "CREATE TRIGGER users_events AFTER INSERT OR UPDATE OR DELETE ON users "
        "FOR EACH ROW EXECUTE FUNCTION outhaul_row_event('test', 'password_hash')"
    )
    running.conn.execute("INSERT INTO users VALUES (1, 'a@b.c', 'secret'), (2, 'd@e.f', 'secret')")
    running.conn.execute("UPDATE users SET email = 'x@y.z' WHERE id = 1")
    with running.conn.transaction(force_rollback=True):
        running.conn.execute("DELETE FROM users")
    running.conn.execute("DELETE FROM users WHERE id = 2")
    running.assert_once_each()
    stored = running.clickhouse.rows("SELECT event_type, event_context FROM event_log ORDER BY cdc_lsn, cdc_ordinal")
    assert [(kind, json.loads(context)) for kind, context in stored] == [
        ("users_inserted", {"new": {"id": 1, "email": "a@b.c"}}),
        ("users_inserted", {"new": {"id": 2, "email": "d@e.f"}}),
        ("users_updated", {"old": {"id": 1, "email": "a@b.c"}, "new": {"id": 1, "email": "x@y.z"}}),
        ("users_deleted", {"old": {"id": 2, "email": "d@e.f"}}),
    ]


def test_a_trigger_without_an_environment_says_what_to_write(world: World) -> None:
    world.conn.execute("CREATE TABLE users (id int)")
    world.conn.execute("CREATE TRIGGER t AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION outhaul_row_event()")
    with pytest.raises(psycopg.errors.RaiseException, match="trigger t must say"):
        world.conn.execute("INSERT INTO users VALUES (1)")


def test_an_app_with_no_more_than_its_role_may_call(world: World) -> None:
    with world.conn.transaction(force_rollback=True):
        world.conn.execute("SET LOCAL ROLE outhaul_app")
        assert world.sql(CALL, None)
        assert world.sql(CALL, "k")


def test_a_function_that_writes_elsewhere_is_left_alone(world: World) -> None:
    world.conn.execute("CREATE TABLE other_outbox (LIKE outbox INCLUDING ALL)")
    said: list[str] = []
    other = world.settings.model_copy(update={"table": "public.other_outbox"})
    apply_postgres(other, said.append)
    assert any("is left as it is" in line and "public.outbox" in line for line in said)
    world.sql(CALL, None)
    assert world.sql("SELECT count(*) FROM outbox") == 1
    # Setup creates outhaul's functions again, also when it runs a second time.
    world.conn.execute("DROP FUNCTION outhaul_row_event, outhaul_emit")
    for _ in range(2):
        apply_postgres(other, said.append)
    world.sql(CALL, None)
    assert world.sql("SELECT count(*) FROM other_outbox") == 1
    assert world.sql("SELECT count(*) FROM outbox") == 1
