"""The outbox in Postgres -> pages of its rows by primary key; rows -> deleted, in short transactions.

Edge: an ordinary connection. Each transaction has a short lock timeout and statement timeout, so that writers of the
outbox do not wait. The publication publishes only inserts, so the reader receives no deletes.

Source: https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-LOCK-TIMEOUT
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from outhaul.cdc_reader.operate.pruning.stored_rows import OutboxRow
from outhaul.cdc_reader.postgres.errors import error_of
from outhaul.cdc_reader.postgres.preflight import connection_error
from outhaul.sink.errors import Exit, FatalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from outhaul.sink.settings import Outbox

    Connection = psycopg.Connection[dict[str, Any]]

BEFORE_ALL = -(1 << 63)

LOCK_TIMEOUT_MS = 2_000
STATEMENT_TIMEOUT_MS = 30_000
_COUNT_TIMEOUT_MS = 5_000
_COUNTED = 1_000_000

_RIGHTS = """
    SELECT to_regclass(%(table)s)::text AS name, current_user AS role,
           has_table_privilege(to_regclass(%(table)s), 'SELECT') AS may_select,
           has_table_privilege(to_regclass(%(table)s), 'DELETE') AS may_delete,
           has_any_column_privilege(to_regclass(%(table)s), 'UPDATE') AS may_lock"""

_PAGE = """
    SELECT id, extract(epoch FROM event_date_time)::float8 AS at_s, event_date_time::text AS printed,
           coalesce(event_date_time < {cutoff}, false) AS is_old
    FROM {table} WHERE id > {after} ORDER BY id LIMIT {limit}"""

# If the role may lock rows, rows that another session has locked are skipped; otherwise the whole batch waits for them
# until lock_timeout. A separate statement: joined with the DELETE, it would be repeated for each row.
_UNLOCKED = "SELECT id FROM {table} WHERE id = ANY(%(ids)s::bigint[]) FOR UPDATE SKIP LOCKED"

# The time is compared too, so that a row that was changed meanwhile stays. Arrays: the planner may misplan a join.
_DELETE = """
    DELETE FROM {table} WHERE id = ANY(%(ids)s::bigint[]) AND event_date_time = ANY(%(times)s::timestamptz[])"""


class LockedError(TransientError):
    """Another session has locked a row or table that was to be deleted; the next pass tries again."""


class OutboxTable:
    """The outbox table of one connection."""

    def __init__(self, conn: Connection, outbox: Outbox, *, dry_run: bool) -> None:
        """Read the table's name and the role's privileges.

        Raises:
            FatalError: the table does not exist, or a privilege is missing; `todo` has the GRANT.
        """
        self.conn = conn
        with translated():
            found = conn.execute(_RIGHTS, {"table": outbox.sql_table}).fetchone() or {}
        if found.get("name") is None:
            raise FatalError(
                f"Postgres has no table {outbox.table}",
                todo="Set OUTHAUL_TABLE to your outbox, as schema.table",
                exit_code=Exit.TABLE_MISSING,
            )
        self.name = str(found["name"])
        self.table = sql.SQL(self.name)
        self._may_lock = bool(found["may_lock"])
        wanted = ["SELECT"] if dry_run else ["SELECT", "DELETE"]
        lacking = [right for right in wanted if not found[f"may_{right.lower()}"]]
        if lacking:
            raise FatalError(
                f"role {found['role']!r} lacks {' and '.join(lacking)} on {self.name}",
                todo=f'GRANT {", ".join(lacking)} ON {self.name} TO "{found["role"]}"',
                exit_code=Exit.ROLE,
            )

    def count_old(self, cutoff: datetime) -> int | None:
        """Count the rows before `cutoff`, up to a million; None if that takes too long.

        Raises:
            PipelineError: Postgres refuses or does not answer.
        """
        text = sql.SQL(
            "SELECT count(*) FROM (SELECT FROM {table} WHERE event_date_time < {cutoff} LIMIT {limit}) AS old"
        ).format(table=self.table, cutoff=cutoff, limit=_COUNTED)
        try:
            with translated(), self.short(_COUNT_TIMEOUT_MS):
                row = self.conn.execute(text).fetchone() or {}
        except SlowError:
            return None
        return int(row["count"])

    def page(self, after: int, limit: int, cutoff: datetime, table: sql.Composable | None = None) -> list[OutboxRow]:
        """Return the next rows by id, of the outbox or of one partition.

        Raises:
            PipelineError: Postgres refuses or does not answer.
        """
        text = sql.SQL(_PAGE).format(cutoff=cutoff, table=table or self.table, after=after, limit=limit)
        with translated(), self.short():
            rows = self.conn.execute(text).fetchall()
        return [OutboxRow(int(row["id"]), row["at_s"], row["printed"], bool(row["is_old"])) for row in rows]

    def delete(self, rows: Sequence[OutboxRow]) -> int:
        """Delete rows in one transaction, except those that are locked or were changed; return how many were deleted.

        Raises:
            LockedError: the lock timeout has expired; nothing was deleted.
            PipelineError: Postgres refuses or does not answer; either nothing or everything was deleted.
        """
        with translated(), self.short():
            if self._may_lock:
                wanted = {"ids": [row.id for row in rows]}
                found = self.conn.execute(sql.SQL(_UNLOCKED).format(table=self.table), wanted, prepare=False)
                unlocked = {row["id"] for row in found}
                rows = [row for row in rows if row.id in unlocked]
            values = {"ids": [row.id for row in rows], "times": [row.printed for row in rows]}
            # Unprepared, so that Postgres plans it for this number of values.
            return self.conn.execute(sql.SQL(_DELETE).format(table=self.table), values, prepare=False).rowcount

    @contextmanager
    def short(self, statement_timeout_ms: int = STATEMENT_TIMEOUT_MS) -> Iterator[None]:
        """Run the block in a transaction with a lock timeout and a statement timeout."""
        with self.conn.transaction():
            self.conn.execute(
                "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)",
                [f"{LOCK_TIMEOUT_MS}ms", f"{statement_timeout_ms}ms"],
            )
            yield


class SlowError(TransientError):
    """A statement took longer than its timeout."""


@contextmanager
def translated() -> Iterator[None]:
    """Translate errors of the driver.

    Raises:
        LockedError: the lock timeout has expired, or there was a deadlock.
        SlowError: a statement took too long.
        PipelineError: any other error, of the kind that its code means.
    """
    try:
        yield
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
        raise LockedError(f"Postgres: {error}") from error
    except psycopg.errors.QueryCanceled as error:
        raise SlowError(
            f"a statement took longer than {STATEMENT_TIMEOUT_MS / 1000:g} s",
            todo="Pass a smaller --batch",
            exit_code=Exit.NOT_FINE,
        ) from error
    except psycopg.OperationalError as error:
        raise connection_error(error) from error
    except psycopg.Error as error:
        raise error_of(error.sqlstate, str(error)) from error


def paused(seconds: float, stop: Callable[[], bool], tick_s: float = 0.1) -> None:
    """Sleep for `seconds`, or until `stop` returns true."""
    deadline = time.monotonic() + seconds
    while not stop() and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, tick_s))
