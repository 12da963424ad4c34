"""A DSN -> a connection; a statement -> its rows, or a PipelineError.

Edge: psycopg. All statements except those of the replication protocol go through `Connection`, so no error of the
driver leaves this file.

Source: https://www.psycopg.org/psycopg3/docs/api/connections.html
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psycopg
from psycopg.rows import dict_row, tuple_row

from outhaul.cdc_reader.postgres import pooler, session_settings
from outhaul.cdc_reader.postgres.errors import error_of
from outhaul.cdc_reader.postgres.login import conninfo, login_error
from outhaul.sink.errors import Exit, FatalError, PipelineError, TransientError
from outhaul.sink.quoting import postgres_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Values = Sequence[Any] | Mapping[str, Any] | None

Row = TypeVar("Row")


class Connection:
    """An ordinary connection: each statement is one transaction, each row a dict.

    In a statement with values, write `%%` for a percent sign.
    """

    def __init__(self, conn: psycopg.Connection[dict[str, Any]]) -> None:
        """Wrap an open connection."""
        self._conn = conn

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the session, and roll back an open transaction."""
        self._conn.close()

    @property
    def version(self) -> int:
        """`server_version_num`."""
        return self._conn.info.server_version

    @property
    def is_encrypted(self) -> bool:
        """Whether TLS is in use."""
        return bool(self._conn.pgconn.ssl_in_use)

    @property
    def info(self) -> psycopg.ConnectionInfo:
        """State of the connection in libpq."""
        return self._conn.info

    def on_notice(self, tell: Callable[[str], None]) -> None:
        """Call `tell` with every notice of the server from now on."""
        self._conn.add_notice_handler(lambda notice: tell(notice.message_primary or ""))

    def execute(self, statement: str, values: Values = None, *, slot: str = "") -> int:
        """Execute a statement, or several without values; return the number of changed rows.

        Args:
            statement: SQL, with quoted names.
            values: values of its placeholders.
            slot: the slot that the statement uses, for the error.

        Raises:
            PipelineError: of the kind that belongs to the SQLSTATE.
        """
        with _translated(slot):
            return self._conn.execute(statement.encode(), values or None).rowcount

    def fetch(self, query: str, values: Values = None, *, slot: str = "") -> list[dict[str, Any]]:
        """Return the rows of a query; the arguments are those of `execute`.

        Raises:
            PipelineError: of the kind that belongs to the SQLSTATE.
        """
        with _translated(slot):
            return self._conn.execute(query.encode(), values or None).fetchall()

    def fetch_one(self, query: str, values: Values = None) -> dict[str, Any] | None:
        """Return the first row of a query; None if it has none.

        Raises:
            PipelineError: of the kind that belongs to the SQLSTATE.
        """
        return next(iter(self.fetch(query, values)), None)

    def fetch_value(self, query: str, values: Values = None) -> Any:
        """Return the first value of the first row of a query; None if it has none.

        Raises:
            PipelineError: of the kind that belongs to the SQLSTATE.
        """
        return next(iter((self.fetch_one(query, values) or {}).values()), None)

    def fetch_as(self, kind: type[Row], query: str, values: Values = None) -> list[Row]:
        """Return the rows of a query as instances of `kind`, whose fields are the query's columns.

        Raises:
            PipelineError: of the kind that belongs to the SQLSTATE.
        """
        return [kind(**row) for row in self.fetch(query, values)]

    def fetch_tuples(self, query: str, values: Values = None) -> list[tuple[Any, ...]]:
        """Return the rows of a query as tuples, in binary form: for many rows of numbers.

        Raises:
            PipelineError: of the kind that belongs to the SQLSTATE.
        """
        with _translated():
            cursor = self._conn.cursor(binary=True, row_factory=tuple_row)
            return cursor.execute(query.encode(), values or None).fetchall()

    def begin_in(self, snapshot: str) -> None:
        """Begin a transaction that sees what an exported snapshot sees.

        Raises:
            TransientError: the snapshot is gone.
            PipelineError: of the kind that belongs to the SQLSTATE.
        """
        self.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            self._conn.execute(f"SET TRANSACTION SNAPSHOT {postgres_literal(snapshot)}".encode())
        except (psycopg.errors.UndefinedObject, psycopg.errors.InvalidParameterValue) as error:
            raise TransientError(
                f"snapshot {snapshot!r} of Postgres is gone, since the session that held it has ended",
                todo="Look in the log of Postgres for what ended it (an administrator, a restart, a failover), and run "
                "this again: what is stored stays",
            ) from error
        except psycopg.Error as error:
            raise error_of(error.sqlstate, str(error)) from error

    def copy(self, statement: str) -> Iterator[bytes]:
        """Yield the messages of a COPY TO STDOUT.

        Raises:
            PipelineError: of the kind that belongs to the SQLSTATE.
        """
        with _translated(), self._conn.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            for message in copy:
                yield bytes(message)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Execute the statements of the block in one transaction.

        Raises:
            PipelineError: of the kind that belongs to the SQLSTATE.
        """
        with _translated(), self._conn.transaction():
            yield


def connect(dsn: str, **extra: str) -> Connection:
    """Open a connection with outhaul's settings; `extra` are parameters of libpq that replace those of the DSN.

    Raises:
        PipelineError: no answer, or the login is refused, or a pooler gives no session of its own.
    """
    address = conninfo(dsn, **extra)
    try:
        # A statement that is not prepared is planned for its values.
        conn = psycopg.connect(address, autocommit=True, row_factory=dict_row, prepare_threshold=None)
    except psycopg.Error as error:
        raise login_error(address, str(error)) from error
    try:
        with _translated():
            session = conn.execute(session_settings.statement(conn.info.server_version).encode()).fetchall()[0]
        pooler.check_sessions(conn, address, session["pid"])
    except PipelineError:
        conn.close()
        raise
    return Connection(conn)


@contextmanager
def _translated(slot: str = "") -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate is None and not isinstance(error, psycopg.OperationalError):
            raise FatalError(
                f"the Postgres driver cannot execute a statement: {error}",
                todo="This is a bug of outhaul, or something between it and Postgres changes the session's settings",
                exit_code=Exit.STREAM_BROKEN,
            ) from error
        raise error_of(error.sqlstate, str(error), slot=slot) from error
