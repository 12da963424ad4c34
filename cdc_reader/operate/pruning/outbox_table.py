"""The outbox in Postgres -> pages of its rows by primary key; rows -> deleted, in short transactions.

Edge: an ordinary connection. Each transaction has a short lock timeout and statement timeout, so that writers of the
outbox do not wait. The publication publishes only inserts, so the reader receives no deletes.

Source: https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-LOCK-TIMEOUT
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from outhaul.cdc_reader.operate.pruning.stored_rows import OutboxRow
from outhaul.cdc_reader.postgres.errors import SlowError, table_missing
from outhaul.cdc_reader.postgres.outbox_checks import check_sees_all
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.quoting import bindable, postgres_identifier

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.settings import Outbox

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
    SELECT id, event_date_time::text AS printed, coalesce(event_date_time < %(cutoff)s, false) AS is_old,
           CASE WHEN isfinite(event_date_time) THEN extract(epoch FROM event_date_time) * 1000000 END::bigint AS at_us
    FROM {table} WHERE %(after)s::bigint IS NULL OR id > %(after)s::bigint ORDER BY id LIMIT %(limit)s"""

# If the role may lock rows, rows that another session has locked are skipped; otherwise the whole batch waits for them
# until lock_timeout. A separate statement: joined with the DELETE, it would be repeated for each row.
_UNLOCKED = "SELECT id FROM {table} WHERE id = ANY(%(ids)s::bigint[]) FOR UPDATE SKIP LOCKED"

# The time is compared too, so that a row that was changed meanwhile stays. Arrays: the planner may misplan a join.
_DELETE = """
    DELETE FROM {table} WHERE id = ANY(%(ids)s::bigint[]) AND event_date_time = ANY(%(times)s::timestamptz[])"""


class OutboxTable:
    """The outbox table of one connection."""

    def __init__(self, conn: Connection, outbox: Outbox, *, dry_run: bool) -> None:
        """Read the table's name and the role's privileges.

        Raises:
            FatalError: the table does not exist, or a privilege is missing; `todo` has the GRANT. Or row-level security
                hides rows.
        """
        self.conn = conn
        found = conn.fetch_one(_RIGHTS, {"table": outbox.sql_table}) or {}
        if found.get("name") is None:
            raise table_missing(outbox.table)
        check_sees_all(conn, outbox.sql_table)
        # Quoted by Postgres where it needs that.
        self.name = str(found["name"])
        self._bindable = bindable(self.name)
        self._may_lock = bool(found["may_lock"])
        wanted = ["SELECT"] if dry_run else ["SELECT", "DELETE"]
        lacking = [right for right in wanted if not found[f"may_{right.lower()}"]]
        if lacking:
            raise FatalError(
                f"role {found['role']!r} lacks {' and '.join(lacking)} on {self.name}",
                todo=f"GRANT {', '.join(lacking)} ON {self.name} TO {postgres_identifier(found['role'])}",
                exit_code=Exit.ROLE,
            )

    def count_old(self, cutoff: datetime) -> int | None:
        """Count the rows before `cutoff`, up to a million; None if that takes too long.

        Raises:
            PipelineError: Postgres refuses or does not answer.
        """
        text = f"SELECT count(*) FROM (SELECT FROM {self._bindable} WHERE event_date_time < %s LIMIT %s) AS old"  # noqa: S608
        try:
            with self.short(_COUNT_TIMEOUT_MS):
                return int(self.conn.fetch_value(text, [cutoff, _COUNTED]))
        except SlowError:
            return None

    def page(self, after: int | None, limit: int, cutoff: datetime, table: str = "") -> list[OutboxRow]:
        """Return the next rows by id, of the outbox or of one partition; the first ones if `after` is None.

        Raises:
            PipelineError: Postgres refuses or does not answer.
        """
        values = {"cutoff": cutoff, "after": after, "limit": limit}
        with self.short():
            rows = self.conn.fetch(_PAGE.format(table=bindable(table or self.name)), values)
        return [OutboxRow(int(row["id"]), row["at_us"], row["printed"], bool(row["is_old"])) for row in rows]

    def delete(self, rows: Sequence[OutboxRow]) -> int:
        """Delete rows in one transaction, except those that are locked or were changed; return how many were deleted.

        Raises:
            LockedError: the lock timeout has expired; nothing was deleted.
            PipelineError: Postgres refuses or does not answer; either nothing or everything was deleted.
        """
        with self.short():
            if self._may_lock:
                found = self.conn.fetch(_UNLOCKED.format(table=self._bindable), {"ids": [row.id for row in rows]})
                unlocked = {row["id"] for row in found}
                rows = [row for row in rows if row.id in unlocked]
            values = {"ids": [row.id for row in rows], "times": [row.printed for row in rows]}
            return self.conn.execute(_DELETE.format(table=self._bindable), values)

    @contextmanager
    def short(self, statement_timeout_ms: int = STATEMENT_TIMEOUT_MS) -> Iterator[None]:
        """Run the block in a transaction with a lock timeout and a statement timeout.

        Raises:
            SlowError: a statement took longer than its timeout.
            PipelineError: Postgres refuses or does not answer.
        """
        try:
            with self.conn.transaction():
                self.conn.execute(
                    "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)",
                    [f"{LOCK_TIMEOUT_MS}ms", f"{statement_timeout_ms}ms"],
                )
                yield
        except SlowError as error:
            raise SlowError(
                f"a statement took longer than {statement_timeout_ms / 1000:g} s", todo="Pass a smaller --batch"
            ) from error
