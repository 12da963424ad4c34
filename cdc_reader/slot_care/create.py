"""Settings -> a new slot, and the snapshot of the moment at which its stream begins.

Edge: the replication protocol, since only that exports the snapshot. Postgres waits for all transactions that write
when it begins, so this may take as long as the longest of them.

Source: https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-CREATE-REPLICATION-SLOT
"""

from __future__ import annotations

import select
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq

from cdc_reader.outbox.line import Line
from cdc_reader.slot import conninfo
from cdc_reader.sqlstate import error_of
from sink.errors import TransientError
from sink.position import Lsn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg.pq.abc import PGconn, PGresult

    from sink.settings import Settings

_FIRST_WITH_OPTIONS, _FIRST_WITH_FAILOVER = 150000, 170000
_TELL_EVERY_S = 5.0


@contextmanager
def create(settings: Settings, *, within_s: float, waiting: Callable[[], None]) -> Iterator[Line]:
    """Create the slot; the block has the line at which its stream begins.

    Args:
        settings: name it.
        within_s: how long open transactions may keep Postgres from it, in seconds.
        waiting: called every few seconds meanwhile.

    Raises:
        TransientError: it took too long; there is no slot then.
        PipelineError: Postgres refuses or does not answer.
    """
    dsn = settings.postgres_dsn.get_secret_value()
    pgconn = pq.PGconn.connect(conninfo(dsn, replication="database").encode())
    try:
        if pgconn.status != pq.ConnStatus.OK:
            raise error_of(None, pgconn.get_error_message())
        result = _execute(pgconn, _command(settings.slot, pgconn.server_version), within_s, waiting)
        if result.status != pq.ExecStatus.TUPLES_OK:
            state = result.error_field(pq.DiagnosticField.SQLSTATE)
            raise error_of(state.decode() if state else None, result.get_error_message(), slot=settings.slot)
        lsn, snapshot = (result.get_value(0, column) or b"" for column in (1, 2))
        yield Line(dsn, snapshot.decode(), Lsn.parse(lsn.decode()))
    finally:
        pgconn.finish()


def _command(slot: str, version: int) -> bytes:
    if version < _FIRST_WITH_OPTIONS:
        options = "EXPORT_SNAPSHOT"
    else:
        options = f"(SNAPSHOT 'export'{', FAILOVER' if version >= _FIRST_WITH_FAILOVER else ''})"
    return f"CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput {options}".encode()


def _execute(pgconn: PGconn, command: bytes, within_s: float, waiting: Callable[[], None]) -> PGresult:
    deadline = time.monotonic() + within_s
    try:
        pgconn.send_query(command)
        while pgconn.is_busy():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                pgconn.get_cancel().cancel()
                raise TransientError(
                    f"Postgres did not create the slot within {within_s:g} s: it waits for transactions that are open",
                    todo="End them (SELECT pid, xact_start, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL "
                    "ORDER BY xact_start) and run this again",
                )
            if not select.select([pgconn.socket], [], [], min(left_s, _TELL_EVERY_S))[0]:
                waiting()
            pgconn.consume_input()
        result = pgconn.get_result()
    except psycopg.Error as error:
        raise error_of(None, str(error)) from error
    if result is None:
        raise error_of(None, pgconn.get_error_message())
    return result
