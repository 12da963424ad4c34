"""Slot that this session owns -> a new epoch, and the stored positions, whose rows are not sent again.

Edge: ClickHouse, which is the checkpoint. Called once a session, after it has taken the slot and before it decodes a
row:

1. *bind*: the newest epoch says which history the stored positions belong to. Another history stops the reader, unless
   it provably continues the known one (cdc_reader/postgres/timelines.py). So does a log that ends before the last
   stored position: a server whose disk was set back to a snapshot has the same history, and writes the positions after
   the snapshot again, with other rows.
2. *fence*: write a newer epoch. From now on ClickHouse refuses every insert that an older reader begins.
3. *wait*: until every insert that began before the fence has ended (sink/fence.py).
4. *push again*: send the stored batches from the slot's confirmed position on to the views that lack them, since their
   insert may have ended between the table and its views. If the tables are replicated, this is done without views, too:
   a replica may show rows of an insert that ended in doubt, and lose them later. Sent again, they are stored.
5. *ask*: which positions from there on are stored? From now on only this session adds to them.

A crash between any two steps leaves an unused epoch and nothing else.

Source: docs/adr/0001-clickhouse-is-the-checkpoint.md, docs/adr/0002-the-fence-is-in-clickhouse.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import structlog

from outhaul.cdc_reader.capture import arrow
from outhaul.cdc_reader.capture.logical_message import FIRST_ORDINAL
from outhaul.cdc_reader.capture.stored_positions import StoredPositions
from outhaul.cdc_reader.postgres.timelines import Past, why_not_follow
from outhaul.sink.errors import Exit, FatalError, PipelineError
from outhaul.sink.failpoint import reach
from outhaul.sink.fence import Epoch, as_owner, newest_epoch, raise_epoch, wait_for_older_inserts
from outhaul.sink.position import NO_LSN, Lsn
from outhaul.sink.replicas import IN_SEQUENCE, find_servers
from outhaul.sink.schema import batch_tables
from outhaul.sink.settings import SHARD_BITS, Stream
from outhaul.sink.sql import query
from outhaul.sink.view_gaps import ViewFeed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.position import History
    from outhaul.sink.settings import Outbox, Settings, Stream

log = structlog.get_logger("outhaul.reader")


_UNKNOWN = Past()

WAS_SET_BACK = (
    "Check OUTHAUL_POSTGRES_DSN; if this is the server to continue with, run `outhaul slot reset --recreate`: it moves "
    "the log past all stored positions, and copies the missing events from the outbox"
)
"""What to do about a server that was set back."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """The epoch of a session, and the stored positions of each events table."""

    epoch: int
    held: Mapping[str, StoredPositions]


def recover(
    clickhouse: ClickHouse,
    stream: Stream,
    history: History,
    confirmed: Lsn,
    owner: str,
    wait: Callable[[float], None],
    *,
    past: Past = _UNKNOWN,
    log_end: Callable[[Lsn], Lsn] | None = None,
) -> Recovered:
    """Bind, fence, wait, push again, ask.

    Args:
        clickhouse: the checkpoint.
        stream: the stream of this session.
        history: history of the server that the session streams from.
        confirmed: position that the slot has confirmed.
        owner: random name of this session.
        wait: sleeps for a number of seconds; raises when the session ends.
        past: the server's earlier timelines.
        log_end: returns the present end of the log, which should be at least its argument; None: it is not checked.

    Raises:
        FatalError: the stored positions belong to another history, or are after the end of the log.
        EpochOverError: another reader has taken over, or ClickHouse was restarted meanwhile.
        TransientError: ClickHouse does not answer, or an older insert does not end; call this again.
    """
    newest = newest_epoch(clickhouse, stream.settings, stream.lane)
    if newest is not None and newest.history != history:
        newest = _follow(clickhouse, stream, newest, history, confirmed, owner, wait, past)
    if newest is not None and log_end is not None:
        check_log_reaches(clickhouse, stream, log_end)
    epoch = 1 + (newest.epoch if newest else 0)
    reach("recovery.bound")
    raise_epoch(clickhouse, stream, history, confirmed, epoch, owner)
    reach("recovery.fenced")
    wait_for_older_inserts(clickhouse, stream.settings, stream.lane, wait)
    reach("recovery.settled")
    with as_owner(clickhouse, stream.settings, stream.lane, epoch, owner):
        for outbox in stream.settings.outboxes():
            _push_again(clickhouse, stream, outbox, confirmed, owner)
    reach("recovery.pushed")
    held = {
        outbox.clickhouse_table: ask_stored_positions(clickhouse, stream, outbox, confirmed)
        for outbox in stream.settings.outboxes()
    }
    reach("recovery.asked")
    rows = sum(one.rows for one in held.values())
    log.info("recovered", source=stream.settings.source, epoch=epoch, confirmed_lsn=str(confirmed), held_rows=rows)
    return Recovered(epoch, held)


def check_log_reaches(clickhouse: ClickHouse, stream: Stream, log_end: Callable[[Lsn], Lsn]) -> None:
    """Check that no stored position is after the end of the log.

    Raises:
        FatalError: one is.
        PipelineError: a server refuses or does not answer.
    """
    last = last_stored(clickhouse, stream.settings, after=log_end(NO_LSN))
    # Other shards, and copies from the outbox, may have stored newer positions since the first question.
    if not last or last <= (end := log_end(last)):
        return
    raise FatalError(
        f"ClickHouse has events of source {stream.settings.source!r} up to {last}, but the log of this server ends at "
        f"{end}: the server was set back, as by a snapshot of its disk, and writes these positions again, with other "
        "events",
        todo=WAS_SET_BACK,
        exit_code=Exit.OTHER_HISTORY,
    )


def last_stored(clickhouse: ClickHouse, settings: Settings, *, after: Lsn = NO_LSN) -> Lsn:
    """Return the LSN of the last stored position of a source, if it is after `after`; otherwise NO_LSN.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    servers = find_servers(clickhouse, settings)
    found = [
        clickhouse.rows(
            query("last_lsn", table=servers.everywhere(name)),
            parameters={"source": settings.source, "after": int(after)},
            settings=IN_SEQUENCE,
        )[0][0]
        for outbox in settings.outboxes()
        for name in batch_tables(outbox)
    ]
    return Lsn(max(int(last or 0) for last in found))


def ask_stored_positions(clickhouse: ClickHouse, stream: Stream, outbox: Outbox, confirmed: Lsn) -> StoredPositions:
    """Return the stored positions of a stream's rows of one outbox from `confirmed` on, dead letters included.

    If the tables are replicated, these are the positions that any replica has: others may not have received them yet.

    Raises:
        PipelineError: ClickHouse does not answer.
    """
    servers = find_servers(clickhouse, stream.settings)
    held = query(
        "stored_runs",
        table=servers.everywhere(outbox.clickhouse_table),
        dead_letters=servers.everywhere(outbox.dead_letters_table),
        of_shard=_of_shard(stream),
    )
    bound = {"source": stream.settings.source, "from_lsn": int(confirmed)}
    table = clickhouse.arrow(held, parameters=bound, settings=IN_SEQUENCE)
    columns = (arrow.values(table.column(name), np.uint64) for name in ("cdc_lsn", "first", "last"))
    return StoredPositions(*columns)


def _push_again(clickhouse: ClickHouse, stream: Stream, outbox: Outbox, confirmed: Lsn, owner: str) -> None:
    feed = ViewFeed(clickhouse, outbox, outbox.clickhouse_table, stream.lane, owner)
    has_views = bool(feed.views())
    if not has_views and not feed.servers().are_replicas:
        return
    which = f"cdc_lsn >= {{from_lsn:UInt64}} AND cdc_lsn % 8 != 7 {_of_shard(stream)}"
    unknown = feed.push_stored(which, {"from_lsn": int(confirmed)})
    if unknown and has_views:
        log.warning(
            "views_not_completed",
            table=outbox.clickhouse_table,
            rows=unknown,
            reason="an older release stored them, or too many inserts followed: a view may lack some of them",
            todo="Compare the views with `outhaul verify --views`",
        )


def _of_shard(stream: Stream) -> str:
    """Return the condition for rows of this shard, which is a part of their ordinal (ADR 12)."""
    if stream.shard is None:
        return ""
    # Events without a table are in the stream of the first shard.
    messages = "" if stream.shard else f" OR cdc_ordinal >= {FIRST_ORDINAL}"
    return f"AND (intDiv(cdc_ordinal, {1 << SHARD_BITS}) = {stream.shard}{messages})"


def _follow(
    clickhouse: ClickHouse,
    stream: Stream,
    newest: Epoch,
    found: History,
    confirmed: Lsn,
    owner: str,
    wait: Callable[[float], None],
    past: Past,
) -> Epoch:
    """Prove that the new timeline continues the known one, and return the epoch under which this was proved.

    That epoch still has the known history, so after a crash here the next session proves it again.

    Raises:
        FatalError: it cannot be proved.
        PipelineError: ClickHouse refuses or does not answer.
    """
    known = newest.history
    if past.witness == (newest.owner, found):
        _log_followed(
            stream, known, found, past, confirmed, "the session kept its own slot during the change of timeline"
        )
        return newest
    if why := why_not_follow(known, found, past, confirmed):
        raise _other_history(stream, known, found, confirmed, why)
    ended_at, epoch = past.ended[known.timeline], newest.epoch + 1
    raise_epoch(clickhouse, stream, known, confirmed, epoch, owner)
    wait_for_older_inserts(clickhouse, stream.settings, stream.lane, wait)
    outboxes = stream.settings.outboxes()
    if tail := sum(ask_stored_positions(clickhouse, stream, outbox, ended_at).rows for outbox in outboxes):
        why = f"ClickHouse has {tail} events that the old primary wrote after {ended_at}, where this timeline began"
        raise _other_history(stream, known, found, confirmed, why)
    origin = "was a standby's own" if known.of_standby else "was synchronised"
    reason = f"the slot {origin}, and no stored event is after the start of the new timeline: nothing is lost"
    _log_followed(stream, known, found, past, confirmed, reason)
    return Epoch(epoch, owner, known)


def _log_followed(stream: Stream, known: History, found: History, past: Past, confirmed: Lsn, reason: str) -> None:
    log.warning(
        "followed_to_new_timeline",
        source=stream.settings.source,
        timeline=found.timeline,
        before=known.timeline,
        branched_at=str(past.ended.get(known.timeline, "unknown")),
        confirmed_lsn=str(confirmed),
        reason=reason,
    )


def _other_history(stream: Stream, known: History, found: History, confirmed: Lsn, why: str) -> PipelineError:
    what = "the new primary"
    if known.system_identifier != found.system_identifier:
        what = "the cluster after pg_upgrade, continue with docs/runbooks/postgres-upgrade.md; if it is the new primary"
    return FatalError(
        f"ClickHouse holds source {stream.settings.source!r} of system {known.system_identifier}, timeline "
        f"{known.timeline}, but slot {stream.slot!r} at {confirmed} belongs to system "
        f"{found.system_identifier}, timeline {found.timeline}: positions of one are not valid in "
        f"the other, and events between the stored ones and the start of the slot may be missing. The reader cannot "
        f"continue by itself: {why}",
        todo=f"Check OUTHAUL_POSTGRES_DSN; if this is {what}, run `outhaul slot reset --recreate`: it copies the "
        "missing events from the outbox",
        exit_code=Exit.OTHER_HISTORY,
    )
