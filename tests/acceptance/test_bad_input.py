"""Whatever is wrong: one clear line with what to do, an exit code of its own, no traceback."""

from collections.abc import Callable, Iterator

import psycopg
import pytest
import redis
from psycopg.conninfo import make_conninfo

from outhaul.sink.errors import Exit
from tests import launch
from tests.conftest import World


def outhaul(world: World, *arguments: str, **env: str) -> tuple[int, str]:
    done = launch.run(*arguments, env=world.env | env, timeout_s=60)
    lines = [line for line in done.stderr.splitlines() if line.startswith("outhaul: ")]
    assert "Traceback" not in done.stderr
    assert len(lines) == 1, done.stderr
    return done.returncode, lines[0]


def test_a_dsn_that_does_not_answer(world: World) -> None:
    code, line = outhaul(world, "reader", OUTHAUL_POSTGRES_DSN="postgresql://127.0.0.1:1/x")
    assert code == Exit.POSTGRES_UNREACHABLE
    assert "OUTHAUL_POSTGRES_DSN" in line


def test_a_database_that_does_not_exist(world: World) -> None:
    code, line = outhaul(world, "reader", OUTHAUL_POSTGRES_DSN=make_conninfo(world.dsn, dbname="nowhere"))
    assert code == Exit.POSTGRES_LOGIN
    assert "nowhere" in line


@pytest.fixture
def plain(world: World) -> str:
    """Return a DSN for a role that may do nothing but log in."""
    world.conn.execute("DROP ROLE IF EXISTS plain")
    world.conn.execute("CREATE ROLE plain LOGIN")
    return make_conninfo(world.dsn, user="plain")


def test_a_role_without_replication(world: World, plain: str) -> None:
    code, line = outhaul(world, "reader", OUTHAUL_POSTGRES_DSN=plain)
    assert code == Exit.ROLE
    assert "ALTER ROLE plain REPLICATION" in line


def test_a_role_that_has_too_many_connections(world: World, plain: str) -> None:
    world.conn.execute("ALTER ROLE plain CONNECTION LIMIT 0")
    code, line = outhaul(world, "setup", OUTHAUL_POSTGRES_DSN=plain)
    assert code == Exit.POSTGRES_UNREACHABLE
    assert "too many connections" in line


def test_setup_by_a_role_that_may_not_create(world: World, plain: str) -> None:
    world.conn.execute("ALTER ROLE plain REPLICATION")
    code, line = outhaul(world, "setup", OUTHAUL_POSTGRES_DSN=plain, OUTHAUL_TABLE="public.other")
    assert code == Exit.ROLE
    assert line.startswith("outhaul: postgres/0001_outbox.sql: Postgres: permission denied for schema public. ")
    assert "outhaul setup --print-sql" in line


def test_setup_in_a_schema_that_does_not_exist(world: World) -> None:
    code, line = outhaul(world, "setup", OUTHAUL_TABLE="nowhere.outbox")
    assert code == Exit.TABLE_MISSING
    assert 'schema "nowhere" does not exist' in line
    assert "OUTHAUL_TABLE" in line


@pytest.mark.slow
def test_setup_of_a_table_that_somebody_has_locked(world: World) -> None:
    world.conn.execute("DROP PUBLICATION outhaul")
    with psycopg.connect(world.dsn) as other:
        other.execute("LOCK TABLE outbox")
        code, line = outhaul(world, "setup")
    assert code == Exit.NOT_FINE
    assert line.startswith("outhaul: postgres/0002_publication.sql: Postgres: canceling statement due to ")
    assert "pg_locks" in line


def test_a_missing_table(make_world: Callable[..., World]) -> None:
    code, line = outhaul(make_world(setup=False), "reader")
    assert code == Exit.TABLE_MISSING
    assert "outhaul setup" in line


def test_a_missing_publication(world: World) -> None:
    code, line = outhaul(world, "reader", OUTHAUL_PUBLICATION="nowhere")
    assert code == Exit.PUBLICATION_MISSING
    assert "outhaul setup" in line


def test_a_publication_of_other_tables(world: World) -> None:
    world.conn.execute("CREATE TABLE other (id int PRIMARY KEY)")
    world.conn.execute("ALTER PUBLICATION outhaul ADD TABLE other")
    code, line = outhaul(world, "reader")
    assert code == Exit.PUBLICATION_MISSING
    assert "public.other" in line


def test_a_missing_slot(world: World) -> None:
    code, line = outhaul(world, "reader", OUTHAUL_SLOT="nowhere")
    assert code == Exit.SLOT_MISSING
    assert "outhaul setup" in line


def test_a_slot_of_another_plugin(world: World) -> None:
    world.conn.execute(
        "SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", ["decoding_" + world.settings.slot]
    )
    try:
        code, line = outhaul(world, "reader", OUTHAUL_SLOT="decoding_" + world.settings.slot)
    finally:
        world.conn.execute("SELECT pg_drop_replication_slot(%s)", ["decoding_" + world.settings.slot])
    assert code == Exit.SLOT_UNUSABLE
    assert "test_decoding" in line


def test_a_slot_of_another_database(make_world: Callable[..., World]) -> None:
    here, there = make_world(), make_world()
    code, line = outhaul(here, "reader", OUTHAUL_SLOT=there.settings.slot)
    assert code == Exit.SLOT_UNUSABLE
    assert there.settings.slot in line


def test_a_slot_that_another_session_holds(running: World) -> None:
    code, line = outhaul(running, "reader", "--no-standby")
    assert code == Exit.SLOT_HELD
    assert "standby" in line


def test_a_clickhouse_that_refuses_the_login(world: World) -> None:
    url = world.env["OUTHAUL_CLICKHOUSE_URL"]
    address = url.rsplit("@", 1)[-1]
    code, line = outhaul(world, "reader", OUTHAUL_CLICKHOUSE_URL=f"http://nobody:wrong@{address}")
    assert code == Exit.CLICKHOUSE_LOGIN
    assert "OUTHAUL_CLICKHOUSE_URL" in line
    assert "wrong@" not in line
    assert outhaul(world, "worker", OUTHAUL_CLICKHOUSE_URL=f"http://nobody:wrong@{address}")[0] == Exit.CLICKHOUSE_LOGIN


def test_a_clickhouse_that_lacks_the_table(world: World) -> None:
    world.clickhouse.command("DROP TABLE event_log")
    code, line = outhaul(world, "reader")
    assert code == Exit.CLICKHOUSE_TABLE
    assert "outhaul setup" in line
    assert outhaul(world, "worker")[0] == Exit.CLICKHOUSE_TABLE


def test_a_clickhouse_that_does_not_answer(world: World) -> None:
    code, line = outhaul(world, "reader", OUTHAUL_CLICKHOUSE_URL="http://127.0.0.1:1/x")
    assert code == Exit.CLICKHOUSE_UNREACHABLE
    assert "OUTHAUL_CLICKHOUSE_URL" in line


def test_a_table_that_would_not_deduplicate(world: World) -> None:
    world.clickhouse.command("DROP TABLE event_log")
    world.clickhouse.command("CREATE TABLE event_log (id Int64) ENGINE = MergeTree ORDER BY id")
    code, line = outhaul(world, "reader")
    assert code == Exit.CLICKHOUSE_TABLE
    assert "MODIFY SETTING" in line


def test_a_redis_that_does_not_answer(world: World) -> None:
    code, line = outhaul(world, "reader", OUTHAUL_REDIS_URL="redis://127.0.0.1:1/0")
    assert code == Exit.REDIS_UNREACHABLE
    assert "OUTHAUL_REDIS_URL" in line


@pytest.fixture
def redis_admin(world: World) -> Iterator[redis.Redis]:
    admin = redis.Redis.from_url(world.env["OUTHAUL_REDIS_URL"])
    yield admin
    admin.config_set("maxmemory", 0)
    admin.replicaof("NO", "ONE")
    admin.close()


def test_a_redis_that_is_full(world: World, redis_admin: redis.Redis) -> None:
    redis_admin.config_set("maxmemory-policy", "noeviction")
    redis_admin.config_set("maxmemory", 1)
    code, line = outhaul(world, "reader")
    assert code == Exit.REDIS_FULL
    assert "maxmemory" in line


def test_a_redis_that_is_read_only(world: World, redis_admin: redis.Redis) -> None:
    redis_admin.replicaof("127.0.0.1", "1")
    code, line = outhaul(world, "reader")
    assert code == Exit.REDIS_READ_ONLY
    assert "primary" in line


def test_settings_that_do_not_hold(world: World) -> None:
    code, line = outhaul(world, "reader", OUTHAUL_LINGER_S="soon")
    assert code == Exit.SETTINGS
    assert "linger_s" in line


def test_another_history_is_refused_until_it_is_bound(running: World) -> None:
    running.insert(3)
    running.assert_once_each()
    running.pipeline.stop()
    running.clickhouse.command(
        "INSERT INTO event_log_epochs (source, epoch, owner, system_identifier, timeline) "
        f"VALUES ('{running.settings.source}', 1000, 'x', '42', 1)"
    )
    code, line = outhaul(running, "reader")
    assert code == Exit.OTHER_HISTORY
    assert "outhaul slot reset --recreate" in line
    launch.run("setup", "--rebind", env=running.env, timeout_s=60).check_returncode()
    running.insert(3)
    running.pipeline.start("worker", "reader")
    running.assert_once_each()


@pytest.mark.thorough
def test_a_table_dropped_under_load_stops_the_reader_with_the_reason_and_loses_nothing(running: World) -> None:
    running.insert(3)
    running.assert_once_each()
    running.clickhouse.command("RENAME TABLE event_log TO hidden")
    running.insert(3)
    assert running.pipeline.wait("reader", 60) == Exit.CLICKHOUSE_TABLE
    assert "outhaul setup" in running.pipeline.log("reader")
    running.clickhouse.command("RENAME TABLE hidden TO event_log")
    running.pipeline.start("reader")
    running.assert_once_each()
