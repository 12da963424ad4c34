"""Stream -> a new slot, and the snapshot of the moment at which the slot begins.

Edge: the replication protocol, since only it exports the snapshot. Postgres waits for all transactions that write at
that time, so this may take as long as the longest of them.

A standby knows these transactions only from the primary's WAL, and the primary logs them rarely. So this file makes the
primary log them, again and again, while it waits. The snapshot is on the standby, so rows under it are read from the
standby.

Source: https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-CREATE-REPLICATION-SLOT
"""

from __future__ import annotations

import select
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, LiteralString

import psycopg
import structlog
from psycopg import pq

from outhaul.cdc_reader.outbox.snapshot import Line
from outhaul.cdc_reader.postgres.connect import check_may_stream, connect_primary, connect_stream, end_of_log
from outhaul.cdc_reader.postgres.errors import NotAllowedError, error_of, result_error
from outhaul.cdc_reader.postgres.login import connect_replication
from outhaul.cdc_reader.postgres.preflight import is_standby
from outhaul.sink.errors import TransientError
from outhaul.sink.position import Lsn
from outhaul.sink.quoting import postgres_identifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg.pq.abc import PGconn, PGresult

    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.settings import Settings, Stream

log = structlog.get_logger("outhaul.slot")

_FIRST_WITH_OPTIONS, _FIRST_WITH_FAILOVER = 150000, 170000
_REPORT_EVERY_S = 5.0
# Seconds between two requests that the primary logs its running transactions; each adds about fifty bytes to its WAL.
_LOG_EVERY_S = 0.5
_POLL_S = 0.1
_OPEN = (
    "on the primary: SELECT pid, xact_start, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL "
    "ORDER BY xact_start; and SELECT gid, prepared FROM pg_prepared_xacts"
)
_RUNNING: LiteralString = "SELECT pg_log_standby_snapshot()"
_GRANT = "GRANT EXECUTE ON FUNCTION pg_log_standby_snapshot() TO the role of OUTHAUL_POSTGRES_DSN"


class Primary:
    """The primary of a standby that gets a slot; logs its running transactions on request, if the role may do that."""

    def __init__(self, conn: Connection) -> None:
        """Wrap a connection to the primary."""
        self._conn = conn
        self.may_not_request = False

    def log_running(self) -> None:
        """Make the primary log its running transactions; without the privilege, wait until it does so by itself.

        Raises:
            PipelineError: the primary does not answer.
        """
        if self.may_not_request:
            return
        try:
            self._conn.execute(_RUNNING)
        except NotAllowedError:
            self.may_not_request = True
            log.warning(
                "running_transactions_not_logged",
                reason="a slot on a standby begins when the primary logs its running transactions, which it does every "
                "15 s if there are writes; this role may not request it",
                todo=_GRANT,
            )

    def wait_until_replayed(self, standby: Connection, deadline: float, waiting: Callable[[], None]) -> None:
        """Wait until a standby has replayed the present WAL, including the publication; `deadline` is monotonic.

        Raises:
            TransientError: it has not by the deadline.
            PipelineError: a server does not answer.
        """
        end, reported_at = end_of_log(self._conn), time.monotonic()
        while (at := end_of_log(standby)) < end:
            now = time.monotonic()
            if now > deadline:
                raise TransientError(
                    f"the standby has replayed the WAL up to {at}, but the primary is at {end}",
                    todo="Check why it lags (pg_stat_replication on the primary, pg_is_wal_replay_paused() on the "
                    "standby), then run this again; no slot was created",
                )
            if now - reported_at > _REPORT_EVERY_S:
                reported_at = now
                waiting()
            # The end of the WAL may not be flushed yet, if its transaction did not wait for that.
            self.log_running()
            time.sleep(_POLL_S)


@contextmanager
def create(stream: Stream, *, within_s: float, waiting: Callable[[], None]) -> Iterator[Line]:
    """Create the slot; yield the line at which its stream begins.

    Args:
        stream: names the slot and its server.
        within_s: time limit for open transactions, and for the replay of a standby, in seconds.
        waiting: called every few seconds while this waits.

    Raises:
        TransientError: the time limit is exceeded; no slot was created.
        PipelineError: Postgres refuses or does not answer.
    """
    deadline = time.monotonic() + within_s
    with ExitStack() as until_created:
        primary = _primary_of(stream.settings, until_created, deadline, waiting)
        pgconn = connect_replication(stream.settings.slot_dsn)
        try:
            command = _command(stream.slot, pgconn.server_version, of_standby=primary is not None)
            result = _execute(pgconn, command, deadline, waiting, primary)
            until_created.close()
            if result.status != pq.ExecStatus.TUPLES_OK:
                raise result_error(result, slot=stream.slot)
            lsn, snapshot = (result.get_value(0, column) or b"" for column in (1, 2))
            yield Line(stream.settings.slot_dsn, snapshot.decode(), Lsn.parse(lsn.decode()))
        finally:
            pgconn.finish()


def _primary_of(settings: Settings, stack: ExitStack, deadline: float, waiting: Callable[[], None]) -> Primary | None:
    """Return the primary of a standby that gets the slot, when that has replayed its WAL; None if it is the primary."""
    with connect_stream(settings) as conn:
        check_may_stream(conn, settings)
        if not is_standby(conn):
            return None
        primary = Primary(stack.enter_context(connect_primary(settings)))
        primary.wait_until_replayed(conn, deadline, waiting)
        return primary


def _command(slot: str, version: int, *, of_standby: bool) -> bytes:
    if version < _FIRST_WITH_OPTIONS:
        options = "EXPORT_SNAPSHOT"
    else:
        # A slot of a standby cannot be synchronised to another server.
        fails_over = version >= _FIRST_WITH_FAILOVER and not of_standby
        options = f"(SNAPSHOT 'export'{', FAILOVER' if fails_over else ''})"
    return f"CREATE_REPLICATION_SLOT {postgres_identifier(slot)} LOGICAL pgoutput {options}".encode()


def _execute(
    pgconn: PGconn, command: bytes, deadline: float, waiting: Callable[[], None], primary: Primary | None
) -> PGresult:
    begun_at = reported_at = time.monotonic()
    try:
        pgconn.send_query(command)
        while pgconn.is_busy():
            now = time.monotonic()
            if now > deadline:
                pgconn.get_cancel().cancel()
                raise _too_long(deadline - begun_at, primary)
            if now - reported_at > _REPORT_EVERY_S:
                reported_at = now
                waiting()
            if primary is not None:
                primary.log_running()
            select.select([pgconn.socket], [], [], min(deadline - now, _LOG_EVERY_S))
            pgconn.consume_input()
        result = pgconn.get_result()
    except psycopg.Error as error:
        raise error_of(None, str(error)) from error
    if result is None:
        raise error_of(None, pgconn.get_error_message())
    return result


def _too_long(seconds: float, primary: Primary | None) -> TransientError:
    waits_for, first = "transactions that are open", ""
    if primary is not None and primary.may_not_request:
        waits_for = "the primary to log which transactions run, or for these to end"
        first = f"{_GRANT}: then the primary logs them at once. "
    return TransientError(
        f"Postgres did not create the slot within {seconds:.0f} s: it waits for {waits_for}",
        todo=f"{first}End these transactions ({_OPEN}) and run this again",
    )
