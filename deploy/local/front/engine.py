"""Statement, settings and parameters -> pieces of the result, out of the ClickHouse engine in this process.

Edge: the one file that touches the engine. Each query has a connection of its own, made for it in a quarter of a
millisecond: settings, database and parameters die with it and never reach another client. The engine frees Python's
lock while it works.

Source: https://clickhouse.com/docs/chdb
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from outhaul.deploy.local.front.http_request import set_statement
from outhaul.deploy.local.front.server_answers import Failure, Summary, failure

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

# Nobody undrops a table here, so its files need not wait for 480 s.
_SERVER_SETTINGS = "database_atomic_delay_before_drop_table_sec=1"

# What clickhouse-local does for its user's comfort and a server does not.
_LIKE_A_SERVER = (("implicit_select", "0"),)


# The engine in a library stops for ever, now and then, when several of its threads write an answer in these formats
# (seen with chdb-core-lite 26.5 at one answer in ten of 300,000 rows, never with one thread).
_ONE_THREAD = frozenset({"arrow", "arrowstream"})


def quirks(output_format: str) -> tuple[tuple[str, str], ...]:
    """Return the settings that an answer in this format needs here and not on a server."""
    return (("max_threads", "1"),) if output_format.lower() in _ONE_THREAD else ()


class EngineError(Exception):
    """The engine refused or gave up; says it as a server would."""

    def __init__(self, told: Failure) -> None:
        super().__init__(told.text)
        self.failure = told


class Engine:
    """The engine over one directory; open while this object is."""

    def __init__(self, path: str, database: str) -> None:
        """Open the data and make sure of the database.

        Args:
            path: where the data is; made if it is not there.
            database: created if it is not there; queries that name none run in it.
        """
        # Here and not above: the import takes 0.4 s, and only the front's own process needs it.
        from chdb import _chdb  # noqa: PLC0415

        self._connect: Any = _chdb.connect  # type: ignore[attr-defined]
        self._path = path
        self._database = database
        self._keeps_it_open = self._connect(f"{path}?{_SERVER_SETTINGS}")
        if self._ask(f"EXISTS DATABASE {database}") == "0":
            self._ask(f"CREATE DATABASE {database} ENGINE = Atomic")
            # The engine's thread that removes dropped tables starts only where it finds a database: DROP TABLE ...
            # SYNC would wait for it for ever.
            self._keeps_it_open.close()
            self._keeps_it_open = self._connect(f"{path}?{_SERVER_SETTINGS}")
        self.version = self._ask("SELECT version()")
        self.timezone = self._ask("SELECT timezone()")

    @contextmanager
    def connection(self, database: str, settings: tuple[tuple[str, str], ...]) -> Iterator[Connection]:
        """Give a connection with these settings; it is closed afterwards.

        Raises:
            EngineError: no such database or setting.
        """
        with self._translated():
            handle = self._connect(self._path)
        try:
            with self._translated():
                # The engine's own `default` is not a plain database, so queries begin in ours.
                handle.query(f"USE `{(database or self._database).replace('`', '``')}`")
                handle.query(set_statement((*_LIKE_A_SERVER, *settings)))
            connection = Connection(self, handle)
            try:
                yield connection
            finally:
                # A result that is still being made would otherwise be cancelled by the garbage collector, on a
                # connection that is closed by then.
                connection.abandon()
        finally:
            handle.close()

    def _ask(self, text: str) -> str:
        answer: bytes = self._keeps_it_open.query(text, "TabSeparated").bytes()
        return answer.decode().strip()

    def cancel_all(self) -> None:
        """End every running query."""
        with suppress(RuntimeError):
            self._keeps_it_open.query("KILL QUERY WHERE query NOT LIKE 'KILL QUERY%' ASYNC")

    def close(self) -> None:
        """Close the data."""
        self._keeps_it_open.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise EngineError(failure(str(error).removeprefix("Failed to create connection: "), self.version)) from None


class Connection:
    """One query's own way to the engine."""

    def __init__(self, engine: Engine, handle: Any) -> None:
        self._engine = engine
        self._handle = handle
        self._progress: dict[str, int] = {}
        self._result: Generator[bytes] | None = None
        handle.set_progress_callback(self._progress.update)

    @property
    def summary(self) -> Summary:
        """What the query has read and written so far."""
        return Summary.of(self._progress)

    def abandon(self) -> None:
        """Cancel what still runs."""
        if self._result is not None:
            self._result.close()

    def run(self, text: bytes | str, format_name: str, parameters: Mapping[str, str]) -> Iterator[bytes]:
        """Carry the statement out and yield its result in one piece, if it has one.

        Raises:
            EngineError: with the engine's code.
        """
        with self._engine._translated():  # noqa: SLF001 - two halves of one edge
            result = self._handle.query(text, format_name, params=dict(parameters))
        if result.size():
            yield result.bytes()

    def stream(self, text: bytes | str, format_name: str, parameters: Mapping[str, str]) -> Iterator[bytes]:
        """Yield the result in the engine's pieces; leaving early cancels the query.

        Raises:
            EngineError: with the engine's code, perhaps behind some pieces.
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
