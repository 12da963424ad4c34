"""A slot that is about to be changed -> nobody streams from it, and no reader begins to.

Edge: an advisory lock on the server that has the slot; a standby has such locks, too. It goes with the connection, so
whoever holds it and dies blocks nobody. A reader that meets it stands by, and streams on by itself when it is gone.

Source: https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, LiteralString

from outhaul.cdc_reader.postgres.connect import connect_stream
from outhaul.cdc_reader.postgres.errors import SlotHeldError
from outhaul.cdc_reader.postgres.slot_view import slot_facts
from outhaul.sink.errors import Exit, FatalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.settings import Stream

_TAKE: LiteralString = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
_LOOK: LiteralString = "SELECT pg_try_advisory_lock_shared(hashtextextended(%s, 0))"
_END: LiteralString = "SELECT pg_terminate_backend(%s)"
# A walsender that is told to end does so between two messages.
_ENDS_WITHIN_S = 20.0
_TAKES_WITHIN_S = 5.0
_POLL_S = 0.1


@contextmanager
def hold(stream: Stream) -> Iterator[Connection]:
    """End the session that streams from the slot, and keep readers off it for the block.

    Raises:
        FatalError: another command changes the slot, or the role may not end the session.
        TransientError: the session does not end.
        PipelineError: Postgres refuses or does not answer.
    """
    with connect_stream(stream.settings) as conn:
        _take(conn, stream)
        _end_session(conn, stream)
        yield conn


def check_free(conn: Connection, stream: Stream) -> None:
    """Look whether the slot is being changed; the connection is closed soon, and its look with it.

    Raises:
        SlotHeldError: it is; stand by.
        PipelineError: Postgres refuses or does not answer.
    """
    if not conn.fetch_value(_LOOK, [_name(stream)]):
        raise SlotHeldError(
            f"slot {stream.slot!r} is being changed by a command of an operator's", exit_code=Exit.SLOT_HELD
        )


def _take(conn: Connection, stream: Stream) -> None:
    # A reader that looks holds the lock for a moment.
    deadline = time.monotonic() + _TAKES_WITHIN_S
    while not conn.fetch_value(_TAKE, [_name(stream)]):
        if time.monotonic() > deadline:
            raise FatalError(
                f"another command is changing slot {stream.slot!r}",
                todo="Wait for it to end",
                exit_code=Exit.SLOT_HELD,
            )
        time.sleep(_POLL_S)


def _end_session(conn: Connection, stream: Stream) -> None:
    deadline = time.monotonic() + _ENDS_WITHIN_S
    while (facts := slot_facts(conn, stream)) is not None and facts.active_pid is not None:
        if time.monotonic() > deadline:
            raise TransientError(
                f"process {facts.active_pid} of Postgres keeps slot {stream.slot!r} and does not end",
                todo="Look what it does in pg_stat_replication; nothing was changed",
                exit_code=Exit.SLOT_HELD,
            )
        conn.execute(_END, [facts.active_pid])
        time.sleep(_POLL_S)


def _name(stream: Stream) -> str:
    return f"outhaul slot {stream.slot}"
