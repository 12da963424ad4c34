"""Settings -> a new slot, and the snapshot of the moment at which its stream begins.

Edge: the replication protocol, since only that exports the snapshot. Postgres waits for all transactions that write
when it begins, so this may take as long as the longest of them.

A standby learns from the primary's log alone which transactions those are, and the primary says so only now and then.
It is asked to, over and over, meanwhile. The snapshot is the standby's, then, and so is what is read under it.

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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg.pq.abc import PGconn, PGresult

    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.settings import Settings, Stream

log = structlog.get_logger("outhaul.slot")

_FIRST_WITH_OPTIONS, _FIRST_WITH_FAILOVER = 150000, 170000
_TELL_EVERY_S = 5.0
# Each writes some fifty bytes to the primary's log.
_ASK_EVERY_S = 0.5
_POLL_S = 0.1
_OPEN = (
    "on the primary: SELECT pid, xact_start, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL "
    "ORDER BY xact_start"
)
_RUNNING: LiteralString = "SELECT pg_log_standby_snapshot()"
_GRANT = "GRANT EXECUTE ON FUNCTION pg_log_standby_snapshot() TO the role of OUTHAUL_POSTGRES_DSN"


class Primary:
    """The primary of a standby on which a slot is made; asked to log which transactions run, where it lets us."""

    def __init__(self, conn: Connection) -> None:
        """Wrap a connection to it."""
        self._conn = conn
        self.is_silent = False

    def log_running(self) -> None:
        """Have it logged; without the right to, the primary does so by itself some time.

        Raises:
            PipelineError: the primary does not answer.
        """
        if self.is_silent:
            return
        try:
            self._conn.execute(_RUNNING)
        except NotAllowedError:
            self.is_silent = True
            log.warning(
                "running_transactions_not_logged",
                reason="a slot of a standby begins when the primary logs which transactions run, which it does every "
                "15 s where anything is written, and this role may not ask for it",
                todo=_GRANT,
            )

    def wait_until_replayed(self, standby: Connection, deadline: float, waiting: Callable[[], None]) -> None:
        """Wait until a standby has all that is in the log now, the publication among it, by the monotonic clock.

        Raises:
            TransientError: it does not come there.
            PipelineError: a server does not answer.
        """
        end, told_at = end_of_log(self._conn), time.monotonic()
        while (at := end_of_log(standby)) < end:
            now = time.monotonic()
            if now > deadline:
                raise TransientError(
                    f"the standby has replayed the log up to {at} and does not come to {end}, where the primary is",
                    todo="Look why it lags (pg_stat_replication on the primary, pg_is_wal_replay_paused() on the "
                    "standby), then run this again; no slot was made",
                )
            if now - told_at > _TELL_EVERY_S:
                told_at = now
                waiting()
            # Of a transaction that did not wait for it, the end of the log may not have been flushed.
            self.log_running()
            time.sleep(_POLL_S)


@contextmanager
def create(stream: Stream, *, within_s: float, waiting: Callable[[], None]) -> Iterator[Line]:
    """Create the slot; the block has the line at which its stream begins.

    Args:
        stream: name it, and the server that gets it.
        within_s: how long open transactions, or the replay of a standby, may keep Postgres from it, in seconds.
        waiting: called every few seconds meanwhile.

    Raises:
        TransientError: it took too long; there is no slot then.
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
    """Return the primary of the server that gets the slot, once that has its log; None where it is the primary."""
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
        # What a standby has cannot be kept in step elsewhere.
        fails_over = version >= _FIRST_WITH_FAILOVER and not of_standby
        options = f"(SNAPSHOT 'export'{', FAILOVER' if fails_over else ''})"
    return f"CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput {options}".encode()


def _execute(
    pgconn: PGconn, command: bytes, deadline: float, waiting: Callable[[], None], primary: Primary | None
) -> PGresult:
    begun_at = told_at = time.monotonic()
    try:
        pgconn.send_query(command)
        while pgconn.is_busy():
            now = time.monotonic()
            if now > deadline:
                pgconn.get_cancel().cancel()
                raise _too_long(deadline - begun_at, primary)
            if now - told_at > _TELL_EVERY_S:
                told_at = now
                waiting()
            if primary is not None:
                primary.log_running()
            select.select([pgconn.socket], [], [], min(deadline - now, _ASK_EVERY_S))
            pgconn.consume_input()
        result = pgconn.get_result()
    except psycopg.Error as error:
        raise error_of(None, str(error)) from error
    if result is None:
        raise error_of(None, pgconn.get_error_message())
    return result


def _too_long(seconds: float, primary: Primary | None) -> TransientError:
    waits_for, first = "transactions that are open", ""
    if primary is not None and primary.is_silent:
        waits_for = "the primary to log which transactions run, or for those to end"
        first = f"{_GRANT}, so that it does at once. "
    return TransientError(
        f"Postgres did not create the slot within {seconds:.0f} s: it waits for {waits_for}",
        todo=f"{first}End those ({_OPEN}) and run this again",
    )
