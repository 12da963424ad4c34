"""A running pipeline -> one of the troubles that docs/runbooks is about, and what fills the page's placeholders.

Edge: breaks real servers and processes. Each trouble is a block: it holds while the page is worked through, and takes
back in the end what it has set on the servers that all tests share.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psycopg

from tests.acceptance.commands import outhaul
from tests.acceptance.metrics_pages import free_port
from tests.conftest import World, until

# What stands between angle brackets on the page: text, or something to do.
Fills = dict[str, str | Callable[[], object]]
Trouble = Callable[[World], AbstractContextManager[Fills]]


@contextmanager
def slot_lost(world: World) -> Iterator[Fills]:
    """Let the log outgrow what a slot may keep while no reader runs."""
    world.pipeline.stop("reader")
    world.insert(70)
    world.conn.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'")
    world.conn.execute("SELECT pg_reload_conf()")
    try:
        world.conn.execute("CREATE TABLE ballast (t text)")
        for _ in range(3):
            _write_log(world)
            world.conn.execute("SELECT pg_switch_wal()")
            world.conn.execute("CHECKPOINT")
        until(lambda: _slot(world, "wal_status") == "lost", what="the slot is lost")
        yield {}
    finally:
        world.conn.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        world.conn.execute("SELECT pg_reload_conf()")


@contextmanager
def slot_gone(world: World) -> Iterator[Fills]:
    """Drop the slot."""
    world.pipeline.stop("reader")
    world.conn.execute("SELECT pg_drop_replication_slot(%s)", [world.settings.slot])
    world.insert(70)
    yield {}


@contextmanager
def wal_growing(world: World) -> Iterator[Fills]:
    """Write a log that nobody reads."""
    world.pipeline.stop("reader")
    world.insert(70)
    world.conn.execute("CREATE TABLE ballast (t text)")
    _write_log(world)
    yield {}


@contextmanager
def clickhouse_down(world: World) -> Iterator[Fills]:
    """Take ClickHouse away under a running pipeline."""
    world.stack.kill("clickhouse")
    world.insert(70)

    def start() -> None:
        # Apps write on, also while there is no slot; what was sent to the workers before may be stored by them.
        world.insert(30)
        world.stack.up()

    yield {"stop the reader": lambda: world.pipeline.stop("reader"), "start ClickHouse": start}


@contextmanager
def redis_lost(world: World) -> Iterator[Fills]:
    """Take Redis away with all that it keeps."""
    world.pipeline.signal("worker", signal.SIGSTOP)
    world.insert(70)
    until(lambda: world.payloads.length(world.settings.queue_key) > 0, what="a batch is in Redis")
    world.stack.kill("redis")
    shutil.rmtree(world.stack.data_dir / "redis")
    world.pipeline.signal("worker", signal.SIGCONT)
    yield {"start Redis": world.stack.up}


@contextmanager
def dead_letters(world: World) -> Iterator[Fills]:
    """Commit two events at times that ClickHouse cannot hold."""
    for at in ("infinity", "-infinity"):
        world.conn.execute(
            "INSERT INTO outbox (event_type, event_date_time, environment, event_context) "
            "VALUES ('timed', %s, 'test', '{}')",
            [at],
        )
    until(lambda: world.ch("SELECT count() FROM event_log_dead_letters") == 2, what="two dead letters")
    rows = world.clickhouse.rows(
        "SELECT cdc_lsn, cdc_ordinal, JSONExtractString(row, 'id') FROM event_log_dead_letters ORDER BY cdc_lsn"
    )
    mended, given_up = (f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}#{ordinal}" for lsn, ordinal, _ in rows)
    yield {"position": mended, "position of one to give up": given_up, "id": str(rows[0][2])}


@contextmanager
def view_refuses(world: World) -> Iterator[Fills]:
    """Make a view that cannot cast every value, and commit an event with such a value."""
    world.clickhouse.command(
        "CREATE TABLE amounts (id Int64, n UInt64) ENGINE = MergeTree ORDER BY id "
        "SETTINGS non_replicated_deduplication_window = 10000"
    )
    world.clickhouse.command(
        "CREATE MATERIALIZED VIEW to_amounts TO amounts AS SELECT id, toUInt64(event_context) AS n FROM event_log"
    )
    world.conn.execute(
        "INSERT INTO outbox (event_type, environment, event_context) VALUES ('counted', 'test', '5'), "
        "('counted', 'test', '\"x\"')"
    )
    until(lambda: world.ch("SELECT count() FROM event_log_view_gaps"), what="the view lacks an event")
    yield {}
    until(lambda: world.ch("SELECT count() FROM amounts") == 2, what="the view has both events")


@contextmanager
def view_differs(world: World) -> Iterator[Fills]:
    """Make a view whose target remembers no tokens, and delete what it has of some events."""
    world.clickhouse.command(
        "CREATE TABLE per_type (event_type String, events UInt64) ENGINE = SummingMergeTree ORDER BY event_type"
    )
    world.clickhouse.command(
        "CREATE MATERIALIZED VIEW to_per_type TO per_type AS "
        "SELECT event_type, count() AS events FROM event_log GROUP BY event_type"
    )
    world.insert(7, "lost")
    world.assert_once_each()
    world.clickhouse.command("ALTER TABLE per_type DELETE WHERE event_type = 'lost' SETTINGS mutations_sync = 2")
    yield {}
    until(
        lambda: world.ch("SELECT sum(events) FROM per_type") == world.stored(),
        what="the view counts all that is stored",
    )


@contextmanager
def failover(world: World) -> Iterator[Fills]:
    """Promote the server, as a standby that has all of the primary's log."""
    world.pipeline.stop("reader")
    world.insert(70)
    data = Path(world.sql("SHOW data_directory"))
    world.conn.close()
    world.stack.down(["postgres"])
    (data / "standby.signal").touch()
    world.stack.up()
    world.conn = psycopg.connect(world.dsn, autocommit=True)
    world.conn.execute("SELECT pg_promote()")
    until(lambda: not world.sql("SELECT pg_is_in_recovery()"), what="the standby is promoted")
    world.insert(30)
    yield {}


@contextmanager
def postgres_upgrade(world: World) -> Iterator[Fills]:
    """Let ClickHouse know another system than the server is, as after pg_upgrade; which has a test of its own."""
    world.pipeline.stop("reader")
    world.clickhouse.command(
        "ALTER TABLE event_log_epochs UPDATE system_identifier = '7' WHERE timeline > 0", settings={"mutations_sync": 1}
    )

    def stop() -> None:
        world.conn.close()
        world.stack.down(["postgres"])

    def start() -> None:
        world.stack.up()
        world.conn = psycopg.connect(world.dsn, autocommit=True)
        world.insert(30)

    nothing = lambda: None  # noqa: E731 - apps write when they are told to, and the reader has ended
    yield {
        "stop the apps": nothing,
        "stop the old Postgres": stop,
        "stop the reader": nothing,
        "run pg_upgrade and start the new Postgres": start,
    }


@contextmanager
def wrong_reset(world: World) -> Iterator[Fills]:
    """Move the slot past events, and accept that they are lost."""
    world.pipeline.stop("reader")
    world.insert(70)
    outhaul(world, "slot", "reset", "--to", "now", "--accept-loss", "--yes")
    world.pipeline.start("reader")
    world.insert(5)
    yield {}


@contextmanager
def duplicates(world: World) -> Iterator[Fills]:
    """Store rows a second time, by hand."""
    world.clickhouse.command("INSERT INTO event_log SELECT * FROM event_log WHERE id BETWEEN 5 AND 7")
    until(lambda: world.stored() == 23, what="three rows are there twice")
    yield {"ids": "5, 6, 7"}


@contextmanager
def missing_rows(world: World) -> Iterator[Fills]:
    """Delete rows in ClickHouse that the slot has passed."""
    world.clickhouse.command("SYSTEM START MERGES event_log")
    world.clickhouse.command("ALTER TABLE event_log DELETE WHERE id <= 7", settings={"mutations_sync": 1})
    yield {}


@contextmanager
def nothing_stored(world: World) -> Iterator[Fills]:
    """Kill the worker; a batch waits in Redis."""
    world.pipeline.kill("worker")
    world.insert(70)
    until(lambda: world.payloads.length(world.settings.queue_key) > 0, what="a batch waits")
    yield {}


@contextmanager
def reader_does_not_start(world: World) -> Iterator[Fills]:
    """Add a table to the publication that nobody asked to capture."""
    world.pipeline.stop("reader")
    world.conn.execute("CREATE TABLE invoices (id int PRIMARY KEY)")
    world.conn.execute("ALTER PUBLICATION outhaul ADD TABLE invoices")
    world.insert(70)
    yield {}


@contextmanager
def too_many_parts(world: World) -> Iterator[Fills]:
    """Keep parts from being merged until ClickHouse refuses more, with room for what waits once they are merged."""
    most = 10
    limits = f"parts_to_delay_insert = {most}, parts_to_throw_insert = {most}"
    world.clickhouse.command(f"ALTER TABLE event_log MODIFY SETTING {limits}")
    for _ in range(most):
        stored = world.stored()
        world.insert(10)
        until(lambda: world.stored() > stored or _refused(world), what="a part more, or one too many")  # noqa: B023
    world.insert(30)
    until(lambda: _refused(world), what="ClickHouse refuses")
    yield {"month": str(world.ch("SELECT toYYYYMM(max(event_date_time)) FROM event_log"))}


@contextmanager
def postgres_down(world: World) -> Iterator[Fills]:
    """Crash Postgres under a running pipeline."""
    world.insert(70)
    world.stack.kill("postgres")

    def start() -> None:
        world.stack.up()
        world.conn.close()
        world.conn = psycopg.connect(world.dsn, autocommit=True)

    yield {"start Postgres": start}


@contextmanager
def metrics_gone(world: World) -> Iterator[Fills]:
    """Run no exporter, where one was to be."""
    port = {"OUTHAUL_METRICS_PORT": str(free_port())}
    world.env |= port
    yield {"start the exporter": lambda: world.pipeline.start("exporter", **port)}


TROUBLES: dict[str, Trouble] = {
    trouble.__name__.replace("_", "-"): trouble
    for trouble in (
        slot_lost,
        slot_gone,
        wal_growing,
        clickhouse_down,
        redis_lost,
        dead_letters,
        view_differs,
        view_refuses,
        failover,
        postgres_upgrade,
        wrong_reset,
        duplicates,
        missing_rows,
        nothing_stored,
        reader_does_not_start,
        too_many_parts,
        postgres_down,
        metrics_gone,
    )
}


def _refused(world: World) -> bool:
    state = world.reader_state()
    return state is not None and "TOO_MANY_PARTS" in state.trouble


def _write_log(world: World) -> None:
    world.conn.execute("INSERT INTO ballast SELECT repeat(md5(n::text), 30) FROM generate_series(1, 20000) AS n")


def _slot(world: World, column: str) -> object:
    return world.sql(
        f"SELECT {column} FROM pg_replication_slots WHERE slot_name = %s",
        world.settings.slot,
    )
