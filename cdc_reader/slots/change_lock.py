"""A slot that will be changed -> no session streams from it, and no reader starts one.

Edge: an advisory lock on the server that has the slot; a standby has such locks, too. The lock ends with its
connection, so a command that dies blocks no reader. A reader that finds the lock stands by, and streams again when the
lock is released.

Source: https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, LiteralString

from outhaul.cdc_reader.postgres.connect import connect_stream
from outhaul.cdc_reader.postgres.errors import SlotHeldError, slot_unusable
from outhaul.cdc_reader.postgres.slot_view import slot_facts
from outhaul.sink.errors import Exit, FatalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.settings import Stream

_LOCK: LiteralString = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
_LOCK_SHARED: LiteralString = "SELECT pg_try_advisory_lock_shared(hashtextextended(%s, 0))"
_END: LiteralString = "SELECT pg_terminate_backend(%s)"
# Seconds until the session has ended: a walsender ends between two messages.
_ENDS_WITHIN_S = 20.0
_LOCKED_WITHIN_S = 5.0
_POLL_S = 0.1


@contextmanager
def hold(stream: Stream) -> Iterator[Connection]:
    """End the session that streams from the slot, and keep readers from starting one during the block.

    Raises:
        FatalError: another command changes the slot, another program may use it, or the role may not end the session.
        TransientError: the session does not end.
        PipelineError: Postgres refuses or does not answer.
    """
    with connect_stream(stream.settings) as conn:
        _lock(conn, stream)
        _end_session(conn, stream)
        yield conn


def check_free(conn: Connection, stream: Stream) -> None:
    """Check that no command changes the slot. This takes a shared lock, which ends when the caller closes `conn`.

    Raises:
        SlotHeldError: a command changes the slot; stand by.
        PipelineError: Postgres refuses or does not answer.
    """
    if not conn.fetch_value(_LOCK_SHARED, [_name(stream)]):
        raise SlotHeldError(f"a command is changing slot {stream.slot!r}", exit_code=Exit.SLOT_HELD)


def _lock(conn: Connection, stream: Stream) -> None:
    # A reader that checks the lock holds it for a moment.
    deadline = time.monotonic() + _LOCKED_WITHIN_S
    while not conn.fetch_value(_LOCK, [_name(stream)]):
        if time.monotonic() > deadline:
            raise FatalError(
                f"another command is changing slot {stream.slot!r}",
                todo="Wait until it has ended",
                exit_code=Exit.SLOT_HELD,
            )
        time.sleep(_POLL_S)


def _end_session(conn: Connection, stream: Stream) -> None:
    deadline = time.monotonic() + _ENDS_WITHIN_S
    while (facts := slot_facts(conn, stream)) is not None:
        if not facts.is_own:
            raise slot_unusable(stream.slot, facts.problem or "", facts.todo)
        if facts.active_pid is None:
            return
        if time.monotonic() > deadline:
            raise TransientError(
                f"process {facts.active_pid} of Postgres holds slot {stream.slot!r} and does not end",
                todo="Check in pg_stat_replication what it does; nothing was changed",
                exit_code=Exit.SLOT_HELD,
            )
        conn.execute(_END, [facts.active_pid])
        time.sleep(_POLL_S)


def _name(stream: Stream) -> str:
    return f"outhaul slot {stream.slot}"
