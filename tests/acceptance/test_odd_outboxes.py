"""A table whose rows the stream and a query see differently is refused, with the reason and with what to type."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from outhaul.cdc_reader.operate.doctor.finding import State
from outhaul.cdc_reader.operate.setup import apply_clickhouse
from tests.acceptance.commands import asked, outhaul
from tests.acceptance.test_partitions import MONTHLY
from tests.conftest import World, until
from tests.integration.doctor_findings import changed, of_postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BY_PROCESSED = (
    MONTHLY.replace("RANGE (event_date_time)", "LIST (processed)")
    .replace(
        "event_key text, PRIMARY KEY (id, event_date_time)", "event_key text, processed boolean NOT NULL DEFAULT false"
    )
    .replace("timestamptz NOT NULL", "timestamptz DEFAULT now()")
)
PARTS = (
    "CREATE TABLE outbox_new PARTITION OF outbox FOR VALUES IN (false)",
    "CREATE TABLE outbox_done PARTITION OF outbox FOR VALUES IN (true)",
)


@contextmanager
def reader_of(world: World) -> Iterator[str]:
    """A login of this test's own that may do what a reader may."""
    name = f"r_{world.settings.slot}"
    world.conn.execute(f"CREATE ROLE {name} LOGIN REPLICATION IN ROLE outhaul_reader".encode())
    try:
        yield make_conninfo(world.dsn, user=name)
    finally:
        world.conn.execute(f"DROP OWNED BY {name}".encode())
        world.conn.execute(f"DROP ROLE {name}".encode())


def to_do(said: str) -> bytes:
    """Return the statements that a message tells to type."""
    return re.search(r"((?:ALTER|CREATE FUNCTION).*?;)  --", said)[1].encode()  # type: ignore[index]


def test_row_level_security_hides_nothing_without_a_word(running: World) -> None:
    running.insert(20)
    running.assert_once_each()
    running.pipeline.stop("reader")
    running.conn.execute("SELECT pg_drop_replication_slot(%s)", [running.settings.slot])
    running.insert(50)
    running.conn.execute("ALTER TABLE outbox ENABLE ROW LEVEL SECURITY")
    running.conn.execute("CREATE POLICY seen ON outbox USING (id <= 20)")
    with reader_of(running) as dsn:
        for command in (
            ["slot", "reset", "--recreate", "--yes"],
            ["reader"],
            ["prune", "--older-than", "0s", "--yes"],
            ["setup"],
        ):
            said = outhaul(running, *command, code=13, OUTHAUL_POSTGRES_DSN=dsn)
            assert "row-level security of outbox" in said
            assert "BYPASSRLS" in said
        settings = changed(running, postgres_dsn=dsn)
        finding = of_postgres(running, settings)["row security"]
        assert finding.state is State.FAIL
        running.conn.execute(finding.fix.encode())
        assert of_postgres(running, settings)["row security"].state is State.PASS
        done = asked(running, "slot", "reset", "--recreate", "--yes", OUTHAUL_POSTGRES_DSN=dsn)
        assert done["stored"] == 50
    running.assert_once_each()


@pytest.mark.thorough
@pytest.mark.parametrize("command", [["verify"], ["backfill"]])
def test_comparisons_beside_a_running_stream_are_refused_too(running: World, command: list[str]) -> None:
    running.insert(20)
    running.assert_once_each()
    running.conn.execute("ALTER TABLE outbox ENABLE ROW LEVEL SECURITY")
    with reader_of(running) as dsn:
        assert "row-level security of outbox" in outhaul(running, *command, code=13, OUTHAUL_POSTGRES_DSN=dsn)


@pytest.mark.thorough
def test_a_policy_that_is_forced_on_the_owner_names_the_way_out_for_an_owner(world: World) -> None:
    with reader_of(world) as dsn:
        name = psycopg.conninfo.conninfo_to_dict(dsn)["user"]
        world.conn.execute(f"ALTER TABLE outbox OWNER TO {name}".encode())
        world.conn.execute("ALTER TABLE outbox ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        assert "NO FORCE ROW LEVEL SECURITY" in outhaul(world, "reader", code=13, OUTHAUL_POSTGRES_DSN=dsn)
        world.conn.execute("REASSIGN OWNED BY " + str(name) + " TO CURRENT_USER")


def test_a_child_table_is_refused_before_the_first_event(world: World) -> None:
    world.conn.execute("CREATE TABLE outbox_2026 () INHERITS (outbox)")
    for command in ("setup", "reader"):
        said = outhaul(world, command, code=14)
        assert "outbox_2026 inherits from outbox" in said
    assert of_postgres(world)["child tables"].state is State.FAIL
    world.conn.execute(to_do(said))
    outhaul(world, "setup")
    assert of_postgres(world)["child tables"].state is State.PASS


@pytest.mark.thorough
def test_a_child_table_that_is_made_while_a_reader_runs_ends_it_with_the_reason(running: World) -> None:
    running.insert(5)
    running.conn.execute("CREATE TABLE outbox_2026 () INHERITS (outbox)")
    until(lambda: "outbox_2026 inherits from outbox" in running.pipeline.log("reader"))
    assert running.stored() == 5


def test_a_partition_key_that_an_update_changes_is_refused_until_postgres_refuses_the_update(
    make_world: Callable[..., World],
) -> None:
    world = make_world(setup=False)
    apply_clickhouse(world.clickhouse, world.settings, lambda _: None)
    for statement in (BY_PROCESSED, *PARTS):
        world.conn.execute(statement.encode())
    said = outhaul(world, "setup", code=14)
    assert "an UPDATE of processed that moves a row" in said
    assert world.sql("SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", world.settings.slot) == 0
    assert of_postgres(world)["row moves"].state is State.FAIL
    world.conn.execute(to_do(said))
    outhaul(world, "setup")
    assert of_postgres(world)["row moves"].state is State.PASS
    world.pipeline.start("worker", "reader")
    world.insert(10)
    until(lambda: world.stored() == 10)
    with pytest.raises(psycopg.errors.RaiseException, match="outhaul would store it again"):
        world.conn.execute("UPDATE outbox SET processed = true")
    world.conn.execute("UPDATE outbox SET event_key = id::text")
    world.insert(1)
    until(lambda: world.stored() == 11)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "key",
    [
        "LIST (environment)",
        "HASH (id, environment)",
        "RANGE ((metadata_version + 1))",
        "RANGE (event_date_time, event_type)",
    ],
)
def test_any_key_of_columns_that_do_not_identify_an_event_is_refused(world: World, key: str) -> None:
    world.conn.execute("DROP TABLE outbox")
    table = MONTHLY.replace(", PRIMARY KEY (id, event_date_time)", "").replace("RANGE (event_date_time)", key)
    world.conn.execute(table.encode())
    assert "would be stored a second time" in outhaul(world, "reader", code=14)


@pytest.mark.thorough
def test_a_key_of_a_partition_s_own_partitions_counts_too(world: World) -> None:
    world.conn.execute("DROP TABLE outbox")
    world.conn.execute(MONTHLY.replace(", PRIMARY KEY (id, event_date_time)", "").encode())
    outhaul(world, "setup")
    world.conn.execute("CREATE TABLE outbox_1 PARTITION OF outbox DEFAULT PARTITION BY LIST (environment)")
    assert "an UPDATE of environment" in outhaul(world, "reader", code=14)


@pytest.mark.thorough
def test_an_unlogged_partition_is_refused_at_the_start(world: World) -> None:
    world.conn.execute("DROP TABLE outbox")
    world.conn.execute(MONTHLY.encode())
    outhaul(world, "setup")
    world.conn.execute("CREATE UNLOGGED TABLE outbox_1 PARTITION OF outbox DEFAULT")
    assert "are not in the WAL" in outhaul(world, "reader", code=14)


@pytest.mark.thorough
def test_a_publication_of_updates_with_a_row_filter_is_refused(world: World) -> None:
    world.conn.execute("ALTER TABLE outbox ADD COLUMN ready boolean NOT NULL DEFAULT false, REPLICA IDENTITY FULL")
    world.conn.execute("DROP PUBLICATION outhaul")
    world.conn.execute("CREATE PUBLICATION outhaul FOR TABLE outbox WHERE (ready) WITH (publish = 'insert, update')")
    said = outhaul(world, "reader", code=15)
    assert "publishes updates and has a row filter" in said
