"""Slot that this session owns -> a new epoch, and the stored positions, which need not be streamed again.

Edge: ClickHouse, which is the checkpoint. Called once a session, after it took the slot and before it reads a row:

1. *bind*: the newest epoch says which history the stored positions belong to. Another history stops the reader, unless
   it provably continues the known one (cdc_reader/postgres/timelines.py).
2. *fence*: write a newer epoch. From here on ClickHouse refuses every insert of an older reader that begins.
3. *wait*: until every insert that began before the fence has ended (sink/fence.py).
4. *ask*: which positions from the slot's confirmed one on are stored? From here on only this session adds to them.

A crash between any two steps leaves an unused epoch behind and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import structlog

from outhaul.cdc_reader.capture import arrow
from outhaul.cdc_reader.capture.logical_message import FIRST_ORDINAL
from outhaul.cdc_reader.capture.stored_positions import StoredPositions
from outhaul.cdc_reader.postgres.timelines import Past, doubt
from outhaul.sink.errors import Exit, FatalError, PipelineError
from outhaul.sink.failpoint import reach
from outhaul.sink.fence import Epoch, newest_epoch, raise_epoch, wait_for_older_inserts
from outhaul.sink.settings import SHARD_BITS, Stream
from outhaul.sink.sql import query

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.position import History, Lsn
    from outhaul.sink.settings import Outbox, Stream

log = structlog.get_logger("outhaul.reader")


_UNKNOWN = Past()


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a session needs to know before its first row; what is held, for each table of events."""

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
) -> Recovered:
    """Bind, fence, wait, ask.

    Args:
        clickhouse: the checkpoint.
        stream: what is to be streamed.
        history: of the server that we stream from.
        confirmed: position that the slot has confirmed.
        owner: random name of this session.
        wait: sleeps for so many seconds; raises when the session is to end.
        past: what the server says of the timelines before its own.

    Raises:
        FatalError: the stored positions belong to another history.
        TransientError: ClickHouse does not answer, or an older insert does not end; begin again.
    """
    newest = newest_epoch(clickhouse, stream.settings, stream.lane)
    if newest is not None and newest.history != history:
        newest = _follow(clickhouse, stream, newest, history, confirmed, owner, wait, past)
    epoch = 1 + (newest.epoch if newest else 0)
    reach("recovery.bound")
    raise_epoch(clickhouse, stream, history, confirmed, epoch, owner)
    reach("recovery.fenced")
    wait_for_older_inserts(clickhouse, stream.settings, stream.lane, wait)
    reach("recovery.settled")
    held = {
        outbox.clickhouse_table: ask(clickhouse, stream, outbox, confirmed) for outbox in stream.settings.outboxes()
    }
    reach("recovery.asked")
    rows = sum(one.rows for one in held.values())
    log.info("recovered", source=stream.settings.source, epoch=epoch, confirmed_lsn=str(confirmed), held_rows=rows)
    return Recovered(epoch, held)


def ask(clickhouse: ClickHouse, stream: Stream, outbox: Outbox, confirmed: Lsn) -> StoredPositions:
    """Return what ClickHouse holds of a stream's rows of one outbox from `confirmed` on, dead letters included.

    Raises:
        PipelineError: ClickHouse does not answer.
    """
    held = query("stored_runs", table=outbox.clickhouse_table, of_shard=_of_shard(stream))
    table = clickhouse.arrow(held, parameters={"source": stream.settings.source, "from_lsn": int(confirmed)})
    columns = (arrow.values(table.column(name), np.uint64) for name in ("cdc_lsn", "first", "last"))
    return StoredPositions(*columns)


def _of_shard(stream: Stream) -> str:
    """Leave out positions of other shards, which may be many: rows have the shard in their ordinals (ADR 12)."""
    if stream.shard is None:
        return ""
    # Events without a table come by the first shard.
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
    """Prove that the new timeline goes on where the known one ended; return the epoch behind which that holds.

    That epoch still has the known history: whoever dies here leaves the question open for the next session.

    Raises:
        FatalError: it cannot be proved.
        PipelineError: ClickHouse refuses or does not answer.
    """
    known = newest.history
    if past.witness == (newest.owner, found):
        _say_followed(stream, known, found, past, confirmed, "the session went on over the change, in its own slot")
        return newest
    if why := doubt(known, found, past, confirmed):
        raise _other_history(stream, known, found, confirmed, why)
    ended_at, epoch = past.ended[known.timeline], newest.epoch + 1
    raise_epoch(clickhouse, stream, known, confirmed, epoch, owner)
    wait_for_older_inserts(clickhouse, stream.settings, stream.lane, wait)
    if tail := sum(ask(clickhouse, stream, outbox, ended_at).rows for outbox in stream.settings.outboxes()):
        why = f"ClickHouse holds {tail} events that the old primary wrote past {ended_at}, where this one branched off"
        raise _other_history(stream, known, found, confirmed, why)
    whose = "was a standby's own" if known.of_standby else "was synchronised"
    reason = f"the slot {whose} and nothing is stored past the branch: nothing is lost"
    _say_followed(stream, known, found, past, confirmed, reason)
    return Epoch(epoch, owner, known)


def _say_followed(stream: Stream, known: History, found: History, past: Past, confirmed: Lsn, reason: str) -> None:
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
        what = (
            "what pg_upgrade has made of it, go on as docs/runbooks/postgres-upgrade.md says; if it is the new primary"
        )
    return FatalError(
        f"ClickHouse holds source {stream.settings.source!r} of system {known.system_identifier}, timeline "
        f"{known.timeline}, but slot {stream.slot!r} at {confirmed} belongs to system "
        f"{found.system_identifier}, timeline {found.timeline}: positions of one mean nothing "
        f"in the other, and events between what is stored and where the slot begins may be missing. It cannot be "
        f"followed by itself: {why}",
        todo=f"Check OUTHAUL_POSTGRES_DSN; if this is {what}, go on with `outhaul slot reset --recreate`: what is "
        "missing is copied from the outbox",
        exit_code=Exit.OTHER_HISTORY,
    )
