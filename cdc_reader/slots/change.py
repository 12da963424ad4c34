"""A plan that the operator has confirmed -> the slot created again, moved or dropped, without loss of events.

Edge: Postgres and ClickHouse; the order of the steps is what matters. The note that a heal is due is written before
events are skipped. The fence is raised, and older inserts have ended, before ClickHouse is asked what it lacks. Readers
stand by meanwhile.

After a crash that follows the note, a heal is due, which copies nothing or little. After a crash that follows the drop,
the reader stops and names the command that continues. After a crash that follows the creation, the reader streams, and
the heal is still due.

Source: docs/adr/0008-the-outbox-is-a-second-log.md
"""

from __future__ import annotations

import secrets
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import structlog

from outhaul.cdc_reader.outbox.heal_due import note_accepted, note_due
from outhaul.cdc_reader.postgres.connect import connect_primary, end_of_log, open_stream
from outhaul.cdc_reader.postgres.errors import RECREATE
from outhaul.cdc_reader.postgres.slot_view import slot_facts
from outhaul.cdc_reader.session.recovery import last_stored
from outhaul.cdc_reader.slots.change_lock import hold
from outhaul.cdc_reader.slots.create import create
from outhaul.sink.errors import Exit, FatalError, PipelineError
from outhaul.sink.failpoint import reach
from outhaul.sink.fence import newest_epoch, raise_epoch, wait_for_older_inserts
from outhaul.sink.position import NO_LSN, Lsn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from outhaul.cdc_reader.outbox.snapshot import Line
    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.position import History
    from outhaul.sink.settings import Stream

log = structlog.get_logger("outhaul.slot")

CREATES_WITHIN_S = 600.0
# Bytes that the WAL of a new primary may be behind the last stored position; it is moved by a segment at a time.
_MAX_TAIL_BYTES = 1 << 30
_POLL_S = 0.1


@contextmanager
def recreate(
    stream: Stream, clickhouse: ClickHouse, *, accept_loss: bool, waiting: Callable[[], None]
) -> Iterator[Line]:
    """Drop the slot, if it exists, and create it at the present end of the WAL; yield the line at which it begins.

    Readers continue as soon as the slot exists, while the block runs.

    Raises:
        PipelineError: a server refuses or does not answer.
    """
    with ExitStack() as until_the_end:
        with hold(stream) as conn:
            facts = slot_facts(conn, stream)
            at = facts.confirmed if facts and facts.confirmed else NO_LSN
            (note_accepted if accept_loss else note_due)(clickhouse, (stream,), at)
            reach("slot.noted")
            take_over(stream, clickhouse, at, slot_is_new=True)
            if facts is not None:
                drop(conn, stream)
            reach("slot.dropped")
            line = until_the_end.enter_context(create(stream, within_s=CREATES_WITHIN_S, waiting=waiting))
        log.info("slot_created", slot=stream.slot, lsn=str(line.lsn), before=str(at))
        reach("slot.created")
        yield line


def restart(stream: Stream, clickhouse: ClickHouse) -> Lsn:
    """End the session, so that the reader begins a new one at the slot's confirmed position; return that position.

    If the server has another history than ClickHouse knows, the source continues in that history. Who created the slot
    there, and when, is unknown, so a heal is due.

    Raises:
        PipelineError: a server refuses or does not answer.
    """
    with hold(stream) as conn:
        at = _usable(conn, stream)
        newest = newest_epoch(clickhouse, stream.settings, stream.lane)
        if newest is not None and newest.history != identify(stream):
            note_due(clickhouse, (stream,), at)
        take_over(stream, clickhouse, at)
    return at


def advance(stream: Stream, clickhouse: ClickHouse, target: Lsn, *, accept_loss: bool) -> Lsn:
    """Move the slot forward to `target`, or as near as the commits allow; return its new position.

    Raises:
        FatalError: the target is before the slot's position, or after the end of the WAL.
        PipelineError: a server refuses or does not answer.
    """
    with hold(stream) as conn:
        at = check_target(conn, stream, target)
        (note_accepted if accept_loss else note_due)(clickhouse, (stream,), at)
        take_over(stream, clickhouse, at)
        moved = "SELECT pg_replication_slot_advance(%s, %s::pg_lsn)"
        conn.execute(moved, [stream.slot, str(target)], slot=stream.slot)
        return _usable(conn, stream)


def check_target(conn: Connection, stream: Stream, target: Lsn) -> Lsn:
    """Check that the slot can be moved to `target`; return its position.

    Raises:
        FatalError: the slot cannot be used, or the target is before its position or after the end of the WAL.
        PipelineError: Postgres refuses or does not answer.
    """
    at, end = _usable(conn, stream), end_of_log(conn)
    if not at < target <= end:
        raise FatalError(
            f"slot {stream.slot!r} can only be moved forward, from {at} to {end} at most, not to {target}",
            todo="To store events again that are before its position: `outhaul verify --repair`",
            exit_code=Exit.USAGE,
        )
    return at


def drop(conn: Connection, stream: Stream) -> None:
    """Drop the slot; no session may stream from it.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    conn.execute("SELECT pg_drop_replication_slot(%s)", [stream.slot], slot=stream.slot)
    log.info("slot_dropped", slot=stream.slot)


def _usable(conn: Connection, stream: Stream) -> Lsn:
    facts = slot_facts(conn, stream)
    problem = "it does not exist" if facts is None else facts.problem
    if problem or facts is None or facts.confirmed is None:
        raise FatalError(
            f"slot {stream.slot!r} cannot be used: {problem}",
            todo=(facts.todo if facts else "") or RECREATE,
            exit_code=Exit.SLOT_UNUSABLE,
        )
    return facts.confirmed


def take_over(
    stream: Stream,
    clickhouse: ClickHouse,
    at: Lsn,
    *,
    slot_is_new: bool = False,
) -> None:
    """Fence older readers, bind the source to this server's history, and wait until older inserts have ended."""
    history = identify(stream)
    newest = newest_epoch(clickhouse, stream.settings, stream.lane)
    known = newest.history if newest else history
    tail = last_stored(clickhouse, stream.settings)
    with connect_primary(stream.settings) as primary:
        # A server whose disk was set back to a snapshot has the same history, and a shorter log.
        is_other = known != history or tail > end_of_log(primary)
        if is_other and slot_is_new:
            _move_wal_past(primary, tail, known, history)
    if is_other and not slot_is_new and tail >= at:
        raise FatalError(
            f"ClickHouse has events of source {stream.settings.source!r} up to {tail}, after slot {stream.slot!r} "
            f"at {at}, from system {known.system_identifier}, timeline {known.timeline}: this server may have other "
            "events at these positions",
            todo="Create the slot again: `outhaul slot reset --recreate` copies the missing events from the outbox",
            exit_code=Exit.OTHER_HISTORY,
        )
    epoch = 1 + (newest.epoch if newest else 0)
    raise_epoch(clickhouse, stream, history, at, epoch, secrets.token_hex(8))
    wait_for_older_inserts(clickhouse, stream.settings, stream.lane, time.sleep)


def identify(stream: Stream) -> History:
    """Return the history that the server writes.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    link = open_stream(stream)
    try:
        return link.identify()
    finally:
        link.close()


def _move_wal_past(conn: Connection, tail: Lsn, known: History, found: History) -> None:
    """Move the end of the WAL after every position of another history in ClickHouse, so that no position is used twice.

    Events that the old primary wrote and its standby did not receive may be stored, or events that a server wrote
    before its disk was set back to a snapshot. The server would use their positions again.
    """
    end = end_of_log(conn)
    if tail >= end + _MAX_TAIL_BYTES:
        raise FatalError(
            f"ClickHouse has positions of this source up to {tail} from system "
            f"{known.system_identifier}, but the WAL of system {found.system_identifier} ends at {end}: it would use "
            "the same positions again",
            todo="Set OUTHAUL_SOURCE to another name; events that both systems have are then stored under both names",
            exit_code=Exit.OTHER_HISTORY,
        )
    while end_of_log(conn) <= tail:
        try:
            conn.execute("SELECT pg_switch_wal(), pg_logical_emit_message(false, 'outhaul mark', '')")
        except PipelineError as error:
            raise FatalError(
                f"ClickHouse has events up to {tail}, after the end of this server's WAL ({end})",
                todo=f"As a superuser, repeat SELECT pg_switch_wal() until pg_current_wal_lsn() is after {tail}; "
                "then run this again",
                exit_code=Exit.OTHER_HISTORY,
            ) from error
        time.sleep(_POLL_S)
