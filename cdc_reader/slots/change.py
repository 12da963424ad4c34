"""A plan that was agreed to -> the slot made anew, moved or dropped, and nothing lost on the way.

Edge: the order of things is all there is to it. The note that a heal is due comes before anything is skipped; the
fence is raised and older inserts are at rest before ClickHouse is asked what it lacks; readers stand by meanwhile.

Dying after the note: a heal is due, which finds nothing or little to do. After the slot was dropped: the reader stops
and says which command goes on. After it was created: the reader streams on, and the heal is still due.
"""

from __future__ import annotations

import secrets
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import structlog

from outhaul.cdc_reader.outbox.heal_due import note_accepted, note_due
from outhaul.cdc_reader.postgres.connect import connect_primary, end_of_log, open_stream
from outhaul.cdc_reader.postgres.errors import slot_unusable
from outhaul.cdc_reader.postgres.slot_view import slot_facts
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
    from outhaul.sink.settings import Settings, Stream

log = structlog.get_logger("outhaul.slot")

CREATES_WITHIN_S = 600.0
# A new primary may be behind the old one's tail by so much; a segment of the log is skipped at a time, in bytes.
_MAX_TAIL_BYTES = 1 << 30
_POLL_S = 0.1


@contextmanager
def make_anew(
    stream: Stream, clickhouse: ClickHouse, *, accept_loss: bool, waiting: Callable[[], None]
) -> Iterator[Line]:
    """Drop the slot, if there is one, and create it where the log ends now; the block has the line at which it begins.

    Readers go on as soon as the slot is there, while the block runs.

    Raises:
        PipelineError: a server refuses or does not answer; the error says how far it came.
    """
    with ExitStack() as until_the_end:
        with hold(stream) as conn:
            facts = slot_facts(conn, stream)
            if facts is not None and facts.is_copy:
                raise slot_unusable(stream.slot, facts.problem or "", facts.todo)
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
    """End the session and let the reader begin anew from what the slot has confirmed; return that position.

    On another timeline or server than ClickHouse knows, that is where the source goes on; who made the slot there, and
    when, is not known, so a heal is due.

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
    """Move the slot forward to `target`, or as near as a commit allows; return where it is then.

    Raises:
        FatalError: the target lies behind the slot, or beyond the end of the log.
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
    """Check that the slot can be moved to `target`; return where it is.

    Raises:
        FatalError: it cannot be used, or the target lies behind it or beyond the end of the log.
        PipelineError: Postgres refuses or does not answer.
    """
    at, end = _usable(conn, stream), end_of_log(conn)
    if not at < target <= end:
        raise FatalError(
            f"slot {stream.slot!r} can only go forward, from {at} to {end} at most, not to {target}",
            todo="To store events again that lie behind it: `outhaul verify --repair`",
            exit_code=Exit.USAGE,
        )
    return at


def drop(conn: Connection, stream: Stream) -> None:
    """Drop the slot, which nobody streams from.

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
            todo="Make it anew: `outhaul slot reset --recreate`; what it skips is copied from the outbox",
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
    """Fence older readers out, bind the source to this server's history, and see older inserts come to rest."""
    history = identify(stream)
    newest = newest_epoch(clickhouse, stream.settings, stream.lane)
    if newest is not None and newest.history != history:
        tail = _tail(stream.settings, clickhouse)
        if slot_is_new:
            with connect_primary(stream.settings) as primary:
                _pass_the_tail(primary, tail, newest.history, history)
        elif tail >= at:
            raise FatalError(
                f"ClickHouse holds events of source {stream.settings.source!r} up to {tail}, past slot {stream.slot!r} "
                f"at {at}, from system {newest.history.system_identifier}, timeline {newest.history.timeline}: some of "
                "them may not be the ones that this server has there",
                todo="Make the slot anew: `outhaul slot reset --recreate`; what is missing is copied from the outbox",
                exit_code=Exit.OTHER_HISTORY,
            )
    epoch = 1 + (newest.epoch if newest else 0)
    raise_epoch(clickhouse, stream, history, at, epoch, secrets.token_hex(8))
    wait_for_older_inserts(clickhouse, stream.settings, stream.lane, time.sleep)


def identify(stream: Stream) -> History:
    """Ask which history the server writes.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    link = open_stream(stream)
    try:
        return link.identify()
    finally:
        link.close()


def _tail(settings: Settings, clickhouse: ClickHouse) -> Lsn:
    rows = [
        clickhouse.rows(
            f"SELECT max(cdc_lsn) FROM {outbox.clickhouse_table} "  # noqa: S608 - a checked name
            "WHERE cdc_source = {source:String} AND cdc_lsn % 8 != 7",
            parameters={"source": settings.source},
        )[0]
        for outbox in settings.outboxes()
    ]
    return Lsn(max(int(last or 0) for (last,) in rows))


def _pass_the_tail(conn: Connection, tail: Lsn, known: History, found: History) -> None:
    """Bring the log past every position that ClickHouse holds of another history, so that none is given twice.

    What an old primary wrote after its standby's last word may be stored, under positions that the new one would use
    again.
    """
    end = end_of_log(conn)
    if tail >= end + _MAX_TAIL_BYTES:
        raise FatalError(
            f"ClickHouse holds positions of this source up to {tail} from system "
            f"{known.system_identifier}, and the log of system {found.system_identifier} ends at {end}: its positions "
            "would be taken for those",
            todo="Go on under another name: OUTHAUL_SOURCE; events that both hold are then stored under both",
            exit_code=Exit.OTHER_HISTORY,
        )
    while end_of_log(conn) <= tail:
        try:
            conn.execute("SELECT pg_switch_wal(), pg_logical_emit_message(false, 'outhaul mark', '')")
        except PipelineError as error:
            raise FatalError(
                f"ClickHouse holds events of the old primary up to {tail}, past the end of this one's log ({end})",
                todo=f"As a superuser, repeat SELECT pg_switch_wal() until pg_current_wal_lsn() is past {tail}; "
                "then run this again",
                exit_code=Exit.OTHER_HISTORY,
            ) from error
        time.sleep(_POLL_S)
