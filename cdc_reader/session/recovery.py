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
from outhaul.cdc_reader.capture.stored_positions import Held
from outhaul.cdc_reader.postgres.timelines import Past, doubt
from outhaul.sink.errors import Exit, FatalError, PipelineError
from outhaul.sink.failpoint import reach
from outhaul.sink.fence import Epoch, newest_epoch, raise_epoch, wait_for_older_inserts
from outhaul.sink.settings import SHARD_BITS
from outhaul.sink.sql import query

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.position import History, Lsn
    from outhaul.sink.settings import Settings

log = structlog.get_logger("outhaul.reader")


_UNKNOWN = Past()


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a session needs to know before its first row; what is held, for each table of events."""

    epoch: int
    held: Mapping[str, Held]


def recover(
    clickhouse: ClickHouse,
    settings: Settings,
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
        settings: names and time limits.
        history: of the server that we stream from.
        confirmed: position that the slot has confirmed.
        owner: random name of this session.
        wait: sleeps for so many seconds; raises when the session is to end.
        past: what the server says of the timelines before its own.

    Raises:
        FatalError: the stored positions belong to another history.
        TransientError: ClickHouse does not answer, or an older insert does not end; begin again.
    """
    newest = newest_epoch(clickhouse, settings)
    if newest is not None and newest.history != history:
        newest = _follow(clickhouse, settings, newest, history, confirmed, owner, wait, past)
    epoch = 1 + (newest.epoch if newest else 0)
    reach("recovery.bound")
    raise_epoch(clickhouse, settings, history, confirmed, epoch, owner)
    reach("recovery.fenced")
    wait_for_older_inserts(clickhouse, settings, wait)
    reach("recovery.settled")
    held = {branch.clickhouse_table: ask(clickhouse, branch, confirmed) for branch in settings.branches()}
    reach("recovery.asked")
    rows = sum(one.rows for one in held.values())
    log.info("recovered", source=settings.source, epoch=epoch, confirmed_lsn=str(confirmed), held_rows=rows)
    return Recovered(epoch, held)


def ask(clickhouse: ClickHouse, branch: Settings, confirmed: Lsn) -> Held:
    """Return what ClickHouse holds of one outbox from `confirmed` on, dead letters included.

    Raises:
        PipelineError: ClickHouse does not answer.
    """
    held = query("held", table=branch.clickhouse_table, of_shard=_of_shard(branch))
    table = clickhouse.arrow(held, parameters={"source": branch.source, "from_lsn": int(confirmed)})
    columns = (arrow.values(table.column(name), np.uint64) for name in ("cdc_lsn", "first", "last"))
    return Held(*columns)


def _of_shard(branch: Settings) -> str:
    """Leave out positions of other shards, which may be many: rows have the shard in their ordinals (ADR 12)."""
    if branch.shard is None:
        return ""
    # Events without a table come by the first shard.
    messages = "" if branch.shard else f" OR cdc_ordinal >= {FIRST_ORDINAL}"
    return f"AND (intDiv(cdc_ordinal, {1 << SHARD_BITS}) = {branch.shard}{messages})"


def _follow(
    clickhouse: ClickHouse,
    settings: Settings,
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
        _say_followed(settings, known, found, past, confirmed, "the session went on over the change, in its own slot")
        return newest
    if why := doubt(known, found, past, confirmed):
        raise _other_history(settings, known, found, confirmed, why)
    branch, epoch = past.ended[known.timeline], newest.epoch + 1
    raise_epoch(clickhouse, settings, known, confirmed, epoch, owner)
    wait_for_older_inserts(clickhouse, settings, wait)
    if tail := sum(ask(clickhouse, one, branch).rows for one in settings.branches()):
        why = f"ClickHouse holds {tail} events that the old primary wrote past {branch}, where this one branched off"
        raise _other_history(settings, known, found, confirmed, why)
    whose = "was a standby's own" if known.of_standby else "was synchronised"
    reason = f"the slot {whose} and nothing is stored past the branch: nothing is lost"
    _say_followed(settings, known, found, past, confirmed, reason)
    return Epoch(epoch, owner, known)


def _say_followed(settings: Settings, known: History, found: History, past: Past, confirmed: Lsn, reason: str) -> None:
    log.warning(
        "followed_to_new_timeline",
        source=settings.source,
        timeline=found.timeline,
        before=known.timeline,
        branched_at=str(past.ended.get(known.timeline, "unknown")),
        confirmed_lsn=str(confirmed),
        reason=reason,
    )


def _other_history(settings: Settings, known: History, found: History, confirmed: Lsn, why: str) -> PipelineError:
    what = "the new primary"
    if known.system_identifier != found.system_identifier:
        what = (
            "what pg_upgrade has made of it, go on as docs/runbooks/postgres-upgrade.md says; if it is the new primary"
        )
    return FatalError(
        f"ClickHouse holds source {settings.source!r} of system {known.system_identifier}, timeline {known.timeline}, "
        f"but slot {settings.slot!r} at {confirmed} belongs to system {found.system_identifier}, timeline "
        f"{found.timeline}: positions of one mean nothing in the other, and events between what is stored and where "
        f"the slot begins may be missing. It cannot be followed by itself: {why}",
        todo=f"Check OUTHAUL_POSTGRES_DSN; if this is {what}, go on with `outhaul slot reset --recreate`: what is "
        "missing is copied from the outbox",
        exit_code=Exit.OTHER_HISTORY,
    )
