"""Slots from which no reader can stream: each is refused before the first event, and nobody else's is dropped."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest

from outhaul.cdc_reader.operate.doctor.finding import State
from outhaul.cdc_reader.operate.setup import apply_postgres
from outhaul.cdc_reader.postgres.preflight import check_slot
from outhaul.cdc_reader.postgres.query import connect
from outhaul.sink.errors import Exit, FatalError, PipelineError
from tests.acceptance.commands import asked, outhaul
from tests.conftest import World, until
from tests.integration.doctor_findings import of_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

FOREIGN = {
    "temporary": ("SELECT pg_create_logical_replication_slot('{0}', 'pgoutput', true)", "it is temporary"),
    "another plugin": ("SELECT pg_create_logical_replication_slot('{0}', 'test_decoding')", "plugin test_decoding"),
    "physical": ("SELECT pg_create_physical_replication_slot('{0}')", "it is physical"),
    "another database": ("SELECT pg_create_logical_replication_slot('{0}', 'pgoutput')", "belongs to database"),
}
TWO_PHASE = "SELECT pg_create_logical_replication_slot('{0}', 'pgoutput', false, true)"


@contextmanager
def another_slot(world: World, kind: str) -> Iterator[None]:
    """Put somebody else's slot in the place of the pipeline's; its session lives as long as the block."""
    world.sql("SELECT pg_drop_replication_slot(%s)", world.settings.slot)
    dsn = world.stack.env()["OUTHAUL_POSTGRES_DSN"] if kind == "another database" else world.dsn
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(FOREIGN[kind][0].format(world.settings.slot).encode())
        try:
            yield
        finally:
            conn.execute("SELECT pg_drop_replication_slot(%s)", [world.settings.slot])


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_slot_that_another_program_may_use_is_refused_everywhere_and_left_alone(world: World, kind: str) -> None:
    with another_slot(world, kind):
        with connect(world.dsn) as conn, pytest.raises(FatalError, match=FOREIGN[kind][1]) as caught:
            check_slot(conn, world.stream)
        assert caught.value.exit_code is Exit.SLOT_UNUSABLE
        assert caught.value.todo.startswith("Another program may use it: set OUTHAUL_SLOT")
        found = of_postgres(world)["slot"]
        assert (found.state, found.fix) == (State.FAIL, caught.value.todo)
        with pytest.raises(PipelineError, match=FOREIGN[kind][1]):
            apply_postgres(world.settings, lambda _: None)
        for command in (("reset", "--recreate"), ("drop",)):
            refused = outhaul(world, "slot", *command, "--yes", code=Exit.SLOT_UNUSABLE)
            assert caught.value.todo in refused.replace("\n", " ")
        assert world.sql("SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", world.settings.slot) == 1


def test_a_temporary_slot_ends_the_reader_instead_of_a_wait_without_end(world: World) -> None:
    with another_slot(world, "temporary"):
        world.pipeline.start("reader", OUTHAUL_HEAL="auto")
        assert world.pipeline.wait("reader", 90) == Exit.SLOT_UNUSABLE
        assert "it is temporary" in world.pipeline.log("reader")


def test_a_two_phase_slot_is_refused_and_the_command_it_names_mends_it(world: World) -> None:
    world.pipeline.start("worker", "reader")
    world.insert(3)
    world.assert_once_each()
    world.pipeline.stop("reader")
    world.sql("SELECT pg_drop_replication_slot(%s)", world.settings.slot)
    world.sql(TWO_PHASE.format(world.settings.slot))
    world.insert(4)
    world.pipeline.start("reader")
    assert world.pipeline.wait("reader", 90) == Exit.SLOT_UNUSABLE
    assert "two_phase" in world.pipeline.log("reader")
    found = of_postgres(world)["slot"]
    assert (found.state, "outhaul slot reset --recreate" in found.fix) == (State.FAIL, True)
    outhaul(world, "slot", "reset", "--recreate", "--yes")
    world.pipeline.start("reader")
    world.insert(2)
    world.assert_once_each()


@pytest.fixture
def preparing(world: World) -> Iterator[World]:
    """A pipeline on a server that takes prepared transactions, which needs a restart."""

    def restart(setting: str) -> None:
        world.conn.execute(f"ALTER SYSTEM {setting}".encode())
        world.conn.close()
        world.stack.down(["postgres"])
        world.stack.up(["postgres"])
        world.conn = psycopg.connect(world.dsn, autocommit=True)

    restart("SET max_prepared_transactions = 4")
    yield world
    for (name,) in world.conn.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
        world.conn.execute(f"ROLLBACK PREPARED '{name}'".encode())
    world.pipeline.kill()
    restart("RESET max_prepared_transactions")


@pytest.mark.thorough
def test_a_prepared_transaction_is_stored_once_when_it_is_committed(preparing: World) -> None:
    world = preparing
    insert = "INSERT INTO outbox (event_type, environment, event_context) VALUES ('prepared', 'test', '{}')"
    world.pipeline.start("worker", "reader")
    for name in ("kept", "dropped", "later"):
        world.conn.execute(f"BEGIN; {insert}; PREPARE TRANSACTION '{name}'".encode())
    world.insert(5)
    world.assert_once_each()
    assert world.stored() == 5
    world.conn.execute("COMMIT PREPARED 'kept'")
    world.conn.execute("ROLLBACK PREPARED 'dropped'")
    world.assert_once_each()
    assert world.stored() == 6
    plan = asked(world, "slot", "reset", "--recreate", "--dry-run")
    assert plan["open_transactions"][0]["query"] == "PREPARE TRANSACTION 'later'"
    world.conn.execute("COMMIT PREPARED 'later'")
    world.assert_once_each()
    until(lambda: world.stored() == 7, what="the last one is stored")
