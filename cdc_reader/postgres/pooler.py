"""A connection -> whether a pooler stands between, and whether its sessions are whole.

Edge: psycopg. Postgres names the process of a session when it accepts the login. A proxy names another process. That is
no fault: some providers have a proxy that gives each client a session of its own. A pooler in transaction mode gives
the session of an idle client to the next one, and locks, snapshots and settings with it.

Source: https://www.pgbouncer.org/features.html
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import psycopg
from psycopg.rows import tuple_row

from outhaul.sink.errors import Exit, FatalError

if TYPE_CHECKING:
    from typing import Any

TODO = (
    "Set OUTHAUL_POSTGRES_DSN to Postgres itself, by the server's own host and port: outhaul needs sessions of its "
    "own, and one for replication. Apps may use the pooler"
)

# One more session would do if nobody else used the pooler at this moment.
_MORE_SESSIONS = 3
_whole: set[str] = set()


class PoolerError(FatalError):
    """A connection leads to a pooler, and is not what outhaul needs."""


def refusal(why: str) -> PoolerError:
    """Return the error for a connection that leads to a pooler."""
    return PoolerError(f"OUTHAUL_POSTGRES_DSN leads to a pooler: {why}", todo=TODO, exit_code=Exit.POSTGRES_LOGIN)


def check_sessions(conn: psycopg.Connection[Any], address: str, pid: int) -> None:
    """Check that each connection to an address has a session of its own; once for each address of this process.

    Args:
        conn: a connection to it.
        address: its parameters, with which further connections are opened.
        pid: the server's process that executes the statements of `conn`, as Postgres itself says.

    Raises:
        PoolerError: connections share sessions.
    """
    if pid == conn.info.backend_pid or address in _whole:
        return
    try:
        with ExitStack() as stack:
            more = [stack.enter_context(psycopg.connect(address, autocommit=True)) for _ in range(_MORE_SESSIONS)]
            turns = [[_pid(one) for one in (*more, conn)] for _ in range(2)]
    except psycopg.Error as error:
        raise refusal(f"it does not give outhaul {1 + _MORE_SESSIONS} sessions at once ({error})") from error
    if turns[0] != turns[1] or len(set(turns[0])) < len(turns[0]):
        raise refusal("its clients share sessions of Postgres, as in transaction mode")
    _whole.add(address)


def _pid(conn: psycopg.Connection[Any]) -> int:
    with conn.cursor(row_factory=tuple_row) as cursor:
        return int(cursor.execute("SELECT pg_backend_pid()").fetchall()[0][0])
