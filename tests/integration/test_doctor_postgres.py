"""The doctor before a real Postgres: what is broken on purpose is mended by the fix that it names."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from outhaul.cdc_reader.operate.doctor import clickhouse_checks, postgres_checks, redis_checks
from outhaul.cdc_reader.operate.doctor.finding import State
from outhaul.cdc_reader.operate.setup import apply_postgres
from outhaul.cdc_reader.postgres.preflight import check_postgres
from outhaul.sink.errors import PipelineError
from tests.conftest import World, until
from tests.integration.doctor_findings import (
    ORDINARY,
    changed,
    of_clickhouse,
    of_columns,
    of_postgres,
    of_redis,
    troubles,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def test_a_pipeline_that_was_set_up_has_nothing_else_to_mend(world: World) -> None:
    assert troubles(of_postgres(world)) == ORDINARY
    assert troubles(of_clickhouse(world)) == {}
    assert troubles(of_columns(world)) == {}
    assert troubles(of_redis(world.settings)) == {}


def test_nothing_is_set_up_and_each_side_says_so(make_world: Callable[..., World]) -> None:
    world = make_world(setup=False)
    found = of_postgres(world)
    assert {check: found[check].state for check in ("outbox", "slot")} == {"outbox": State.FAIL, "slot": State.FAIL}
    assert all("outhaul setup" in found[check].fix for check in ("outbox", "slot"))
    tables = of_clickhouse(world)["tables"]
    assert (tables.state, "outhaul setup" in tables.fix) == (State.FAIL, True)


def test_a_slot_that_is_missing_fails(world: World) -> None:
    world.sql("SELECT pg_drop_replication_slot(%s)", world.settings.slot)
    found = of_postgres(world)["slot"]
    assert (found.state, world.settings.slot in found.found) == (State.FAIL, True)


def test_a_slot_with_another_plugin_fails(world: World) -> None:
    world.sql("SELECT pg_drop_replication_slot(%s)", world.settings.slot)
    world.sql("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", world.settings.slot)
    found = of_postgres(world)["slot"]
    assert (found.state, "test_decoding" in found.found) == (State.FAIL, True)


@pytest.mark.postgres(17)
def test_a_slot_without_failover_is_mended_by_the_command_it_names(world: World) -> None:
    slot = world.settings.slot
    world.sql("SELECT pg_drop_replication_slot(%s)", slot)
    world.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", slot)
    found = of_postgres(world)["slot failover"]
    assert found.state is State.WARN
    command = found.fix.split("-c '")[1].split("'")[0]
    with psycopg.connect(world.dsn, autocommit=True, replication="database") as link:
        link.pgconn.exec_(command.encode())
    assert of_postgres(world)["slot failover"].state is State.PASS


def test_the_slot_tells_how_much_wal_it_keeps_and_how_far_behind_it_is(world: World) -> None:
    def sizes() -> tuple[int, int]:
        answer = postgres_checks.ask(world.stream, world.settings.outboxes())
        assert answer.slot is not None
        assert answer.prospect is not None
        return answer.slot.retained_bytes or 0, answer.prospect.behind_bytes or 0

    before = sizes()
    world.insert(1000)
    assert all(now > then + 100_000 for now, then in zip(sizes(), before, strict=True))


@pytest.mark.parametrize(
    ("broken", "check", "state"),
    [
        ("ALTER PUBLICATION outhaul SET (publish = 'insert, update')", "insert only", State.WARN),
        ("ALTER PUBLICATION outhaul SET (publish = 'delete')", "publication", State.FAIL),
        ("ALTER PUBLICATION outhaul DROP TABLE outbox", "publication", State.FAIL),
        ("CREATE TABLE other (); ALTER PUBLICATION outhaul ADD TABLE other", "publication", State.FAIL),
        ("ALTER PUBLICATION outhaul SET (publish_via_partition_root = false)", "via root", State.WARN),
    ],
)
def test_a_publication_is_mended_by_the_statement_it_names(world: World, broken: str, check: str, state: State) -> None:
    world.conn.execute(broken.encode())
    found = of_postgres(world)[check]
    assert found.state is state
    world.conn.execute(found.fix.split(", or ")[0].encode())
    mended = of_postgres(world)
    assert mended[check].state is State.PASS
    assert mended["publication"].state is State.PASS


def test_a_publication_of_all_tables_is_a_trap_and_a_missing_one_a_failure(world: World) -> None:
    world.conn.execute("DROP PUBLICATION outhaul")
    assert of_postgres(world)["publication"].state is State.FAIL
    world.conn.execute("CREATE PUBLICATION outhaul FOR ALL TABLES WITH (publish_via_partition_root = true)")
    found = of_postgres(world)
    assert found["all tables"].state is State.WARN
    world.conn.execute(found["all tables"].fix.split("  --")[0].encode())
    assert troubles(of_postgres(world)) == ORDINARY


def partitioned(make_world: Callable[..., World]) -> World:
    world = make_world(setup=False)
    world.conn.execute(
        "CREATE TABLE outbox (id bigserial, event_type text NOT NULL, event_date_time timestamptz NOT NULL, "
        "environment text NOT NULL, event_context jsonb NOT NULL, metadata_version bigint) "
        "PARTITION BY RANGE (event_date_time)"
    )
    world.conn.execute("CREATE TABLE outbox_1 PARTITION OF outbox FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')")
    world.conn.execute("CREATE TABLE outbox_2 PARTITION OF outbox FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')")
    return world


def test_partitions_are_captured_by_way_of_the_root_and_by_no_other(make_world: Callable[..., World]) -> None:
    world = partitioned(make_world)
    world.conn.execute("CREATE PUBLICATION outhaul FOR TABLE outbox WITH (publish = 'insert')")
    found = of_postgres(world)
    assert {check: found[check].state for check in ("publication", "partitions")} == {
        "publication": State.FAIL,
        "partitions": State.FAIL,
    }
    world.conn.execute(found["publication"].fix.encode())
    mended = of_postgres(world)
    assert mended["publication"].state is State.PASS
    assert mended["partitions"].found == "all 2 are captured, and new ones will be"


def test_an_unlogged_partition_is_not_captured(make_world: Callable[..., World]) -> None:
    world = partitioned(make_world)
    world.conn.execute("CREATE PUBLICATION outhaul FOR TABLE outbox WITH (publish_via_partition_root = true)")
    world.conn.execute("DROP TABLE outbox_2")
    world.conn.execute(
        "CREATE UNLOGGED TABLE outbox_2 PARTITION OF outbox FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')"
    )
    found = of_postgres(world)["partitions"]
    assert (found.state, "outbox_2" in found.found) == (State.FAIL, True)
    assert found.fix.startswith("ALTER TABLE outbox_2 SET LOGGED;")


@contextmanager
def role_of(world: World, attributes: str) -> Iterator[str]:
    """A role of this test's own."""
    name = f"r_{world.settings.slot}"
    world.conn.execute(f"CREATE ROLE {name} {attributes}".encode())
    try:
        yield name
    finally:
        world.conn.execute(f"DROP OWNED BY {name}".encode())
        world.conn.execute(f"DROP ROLE {name}".encode())


def test_a_role_without_replication_or_grants_gets_what_it_lacks(world: World) -> None:
    with role_of(world, "LOGIN") as name:
        settings = changed(world, postgres_dsn=make_conninfo(world.dsn, user=name))
        found = of_postgres(world, settings)
        assert {check: found[check].state for check in ("replication connection", "SELECT")} == {
            "replication connection": State.FAIL,
            "SELECT": State.WARN,
        }
        assert found["least privilege"].state is State.PASS
        for check in ("replication connection", "SELECT"):
            world.conn.execute(found[check].fix.split("  --")[0].encode())
        assert troubles(of_postgres(world, settings)) == {
            check: state for check, state in ORDINARY.items() if check != "least privilege"
        }


def test_a_role_that_is_no_superuser_is_enough_for_the_reader_and_for_setup(world: World) -> None:
    with role_of(world, "LOGIN REPLICATION") as name:
        settings = changed(world, postgres_dsn=make_conninfo(world.dsn, user=name))
        check_postgres(settings.undivided)
        world.conn.execute(f"ALTER TABLE outbox OWNER TO {name}".encode())
        world.conn.execute(f"ALTER PUBLICATION outhaul OWNER TO {name}".encode())
        world.conn.execute(f"GRANT CREATE ON SCHEMA public TO {name}".encode())
        apply_postgres(settings, lambda _: None)
        world.conn.execute(f"REASSIGN OWNED BY {name} TO CURRENT_USER".encode())


def test_the_group_role_is_enough_for_an_outbox_in_a_schema_of_its_own(make_world: Callable[..., World]) -> None:
    world = make_world(setup=False, table="app.outbox")
    world.conn.execute("CREATE SCHEMA app")
    apply_postgres(world.settings, lambda _: None)
    with role_of(world, "LOGIN REPLICATION") as name:
        settings = changed(world, postgres_dsn=make_conninfo(world.dsn, user=name))
        with pytest.raises(PipelineError, match="permission denied for schema app"):
            postgres_checks.ask(settings.undivided, settings.outboxes())
        world.conn.execute(f"GRANT outhaul_reader TO {name}".encode())
        check_postgres(settings.undivided)
        assert of_postgres(world, settings)["SELECT"].state is State.PASS


def test_a_wrong_password_is_one_line_that_does_not_hold_it(world: World) -> None:
    with role_of(world, "LOGIN PASSWORD 'right'") as name, asking_for_passwords(world, name):
        settings = changed(world, postgres_dsn=make_conninfo(world.dsn, user=name, password="wrong-secret"))
        with pytest.raises(PipelineError, match="Check user, password and database") as caught:
            postgres_checks.ask(settings.undivided, settings.outboxes())
    assert "wrong-secret" not in str(caught.value)
    url = world.env["OUTHAUL_CLICKHOUSE_URL"]
    login = url.split("//")[1].split("@")[0]
    wrong = changed(world, clickhouse_url=url.replace(login, "outhaul:wrong-secret"))
    with pytest.raises(PipelineError, match="Check user and password") as caught:
        clickhouse_checks.ask(wrong.undivided, wrong.outboxes())
    assert "wrong-secret" not in str(caught.value)
    with pytest.raises(PipelineError, match="Check user, password and ACL") as caught:
        redis_checks.ask(
            changed(world, redis_url=world.env["OUTHAUL_REDIS_URL"].replace("//", "//nobody:wrong-secret@"))
        )
    assert "wrong-secret" not in str(caught.value)


@contextmanager
def asking_for_passwords(world: World, role: str) -> Iterator[None]:
    """Let pg_hba.conf ask this role for its password; the embedded server trusts everybody else."""
    path = Path(world.sql("SHOW hba_file"))
    before = path.read_text()
    path.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{before}")
    world.sql("SELECT pg_reload_conf()")
    try:
        until(
            lambda: world.sql("SELECT count(*) FROM pg_hba_file_rules WHERE %s = ANY(user_name)", role),
            what="the new rule",
        )
        until(lambda: _refused(make_conninfo(world.dsn, user=role)), what="a login without password is refused")
        yield
    finally:
        path.write_text(before)
        world.sql("SELECT pg_reload_conf()")


def _refused(dsn: str) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        return True
    return False
