"""Statement, settings and parameters -> pieces of the result, from the ClickHouse engine in this process.

Edge: the only file that calls the engine. Each query gets a connection of its own, in a quarter of a millisecond. Its
settings, database and parameters end with it, so they do not affect other clients. The engine releases the GIL while it
works.

Source: https://clickhouse.com/docs/chdb
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from outhaul.deploy.local.clickhouse_http.http_request import set_statement
from outhaul.deploy.local.clickhouse_http.response_parts import Failure, Summary, failure
from outhaul.sink.quoting import clickhouse_identifier

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

# UNDROP TABLE is not needed here, so the files of a dropped table are not kept for the default of 480 s.
_SERVER_SETTINGS = "database_atomic_delay_before_drop_table_sec=1"

# The engine has clickhouse-local's defaults. This setting gets a server's default.
_SERVER_DEFAULTS = (("implicit_select", "0"),)


# The engine sometimes hangs forever when several of its threads write a result in these formats. It was seen with
# chdb-core-lite 26.5 for one result in ten of 300,000 rows, and never with one thread.
_ONE_THREAD = frozenset({"arrow", "arrowstream"})


def format_settings(output_format: str) -> tuple[tuple[str, str], ...]:
    """Return the settings that the engine needs for a result in this format; a server does not need them."""
    return (("max_threads", "1"),) if output_format.lower() in _ONE_THREAD else ()


class EngineError(Exception):
    """The engine refused or ended a query; `failure` is the answer that a server would give."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


class Engine:
    """The engine of one data directory. It is open until `close`."""

    def __init__(self, path: str, database: str) -> None:
        """Open the data directory and create the database if needed.

        Args:
            path: the data directory; created if it does not exist.
            database: the database for queries that name no other.
        """
        # Imported here, since the import takes 0.4 s and only the process of the front needs it.
        from chdb import _chdb  # noqa: PLC0415

        self._connect: Any = _chdb.connect  # type: ignore[attr-defined]
        self._path = path
        self._database = database
        self._first_connection = self._connect(f"{path}?{_SERVER_SETTINGS}")
        if self._ask(f"EXISTS DATABASE {database}") == "0":
            self._ask(f"CREATE DATABASE {database} ENGINE = Atomic")
            # The engine's thread that removes dropped tables starts only if the engine finds a database when it opens.
            # Without that thread, DROP TABLE ... SYNC would wait forever.
            self._first_connection.close()
            self._first_connection = self._connect(f"{path}?{_SERVER_SETTINGS}")
        self.version = self._ask("SELECT version()")
        self.timezone = self._ask("SELECT timezone()")

    @contextmanager
    def connection(self, database: str, settings: tuple[tuple[str, str], ...]) -> Iterator[Connection]:
        """Open a connection with these settings, and close it at the end of the block.

        Raises:
            EngineError: the database or a setting does not exist.
        """
        with self._translated():
            handle = self._connect(self._path)
        try:
            with self._translated():
                # The engine's `default` is not a plain database, so queries run in outhaul's database instead.
                handle.query(f"USE {clickhouse_identifier(database or self._database)}")
                handle.query(set_statement((*_SERVER_DEFAULTS, *settings)))
            connection = Connection(self, handle)
            try:
                yield connection
            finally:
                # Otherwise the garbage collector would cancel an unfinished result later, on a closed connection.
                connection.cancel()
        finally:
            handle.close()

    def _ask(self, text: str) -> str:
        answer: bytes = self._first_connection.query(text, "TabSeparated").bytes()
        return answer.decode().strip()

    def cancel_all(self) -> None:
        """Cancel every running query."""
        with suppress(RuntimeError):
            self._first_connection.query("KILL QUERY WHERE query NOT LIKE 'KILL QUERY%' ASYNC")

    def close(self) -> None:
        """Close the data directory."""
        self._first_connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise EngineError(failure(str(error).removeprefix("Failed to create connection: "), self.version)) from None


class Connection:
    """The connection of one query to the engine."""

    def __init__(self, engine: Engine, handle: Any) -> None:
        self._engine = engine
        self._handle = handle
        self._progress: dict[str, int] = {}
        self._result: Generator[bytes] | None = None
        handle.set_progress_callback(self._progress.update)

    @property
    def summary(self) -> Summary:
        """The counters of rows and bytes that the query has read and written so far."""
        return Summary.of(self._progress)

    def cancel(self) -> None:
        """Cancel the query, if it still runs."""
        if self._result is not None:
            self._result.close()

    def run(self, text: bytes | str, format_name: str, parameters: Mapping[str, str]) -> Iterator[bytes]:
        """Execute the statement and yield its result in one piece; yield nothing if the result is empty.

        Raises:
            EngineError: the statement failed.
        """
        with self._engine._translated():  # noqa: SLF001 - two halves of one edge
            result = self._handle.query(text, format_name, params=dict(parameters))
        if result.size():
            yield result.bytes()

    def stream(self, text: bytes | str, format_name: str, parameters: Mapping[str, str]) -> Iterator[bytes]:
        """Yield the result in the engine's pieces; closing the iterator early cancels the query.

        Raises:
            EngineError: the statement failed, possibly after some pieces.
        """
        self._result = self._pieces(text, format_name, parameters)
        return self._result

    def _pieces(self, text: bytes | str, format_name: str, parameters: Mapping[str, str]) -> Generator[bytes]:
        with self._engine._translated():  # noqa: SLF001
            result = self._handle.send_query(text, format_name, params=dict(parameters))
        ended = False
        try:
            while True:
                with self._engine._translated():  # noqa: SLF001
                    piece = self._handle.streaming_fetch_result(result)
                if piece is None or not piece.size():
                    ended = True
                    return
                yield piece.bytes()
        except EngineError:
            ended = True
            raise
        finally:
            if not ended:
                self._handle.streaming_cancel_query(result)
