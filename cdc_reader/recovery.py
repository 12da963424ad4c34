"""Slot owned -> epoch of our own, older inserts at rest, and the positions that need not be streamed again.

Edge: ClickHouse, which is the checkpoint. Called once a session, when the slot is ours and no row has been looked at:

1. *bind*: the newest epoch tells which history the stored positions belong to; another one is a stop.
2. *fence*: write a newer epoch. From here on ClickHouse refuses every insert of an older reader that begins.
3. *settle*: wait until no insert that began before the fence is still running. Every insert is listed among the
   running queries before it asks for the epoch, so one of the two sees the other: it is refused, or it is waited for.
   No clock is involved.
4. *ask*: which positions from the slot's confirmed one on are stored? Nothing but ourselves can add to the answer.

Dying between any two of these leaves nothing but an epoch that nobody uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import structlog

from cdc_reader import arrow
from cdc_reader.held import Held
from cdc_reader.slot import History
from sink.codes import ACCESS_DENIED
from sink.errors import Exit, FatalError, PipelineError, TransientError
from sink.failpoint import reach
from sink.insert import mark
from sink.sql import query

if TYPE_CHECKING:
    from collections.abc import Callable

    from sink.clickhouse import ClickHouse
    from sink.position import Lsn
    from sink.settings import Settings

log = structlog.get_logger("outhaul.reader")

_POLL_S = 0.1
# Beyond the server's own limit for an insert; it ends a statement between two blocks, not in the middle of one.
_GRACE_S = 10


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a session needs to know before its first row."""

    epoch: int
    held: Held


def recover(
    clickhouse: ClickHouse,
    settings: Settings,
    history: History,
    confirmed: Lsn,
    owner: str,
    wait: Callable[[float], None],
) -> Recovered:
    """Bind, fence, settle, ask.

    Args:
        clickhouse: the checkpoint.
        settings: names and time limits.
        history: of the server that we stream from.
        confirmed: position that the slot has confirmed.
        owner: random name of this session.
        wait: sleeps for so many seconds; raises when the session is to end.

    Raises:
        FatalError: the stored positions belong to another history.
        TransientError: ClickHouse does not answer, or an older insert does not end; begin again.
    """
    newest = newest_epoch(clickhouse, settings)
    if newest is not None and newest.history != history:
        raise _other_history(settings, newest.history, history, confirmed)
    epoch = 1 + (newest.epoch if newest else 0)
    reach("recovery.bound")
    raise_epoch(clickhouse, settings, history, confirmed, epoch, owner)
    reach("recovery.fenced")
    _settle(clickhouse, settings, wait)
    reach("recovery.settled")
    held = ask(clickhouse, settings, confirmed)
    reach("recovery.asked")
    log.info("recovered", source=settings.source, epoch=epoch, confirmed_lsn=str(confirmed), held_rows=held.rows)
    return Recovered(epoch, held)


@dataclass(frozen=True, slots=True)
class Epoch:
    """A reader's turn, as ClickHouse remembers it."""

    epoch: int
    owner: str
    history: History


def newest_epoch(clickhouse: ClickHouse, settings: Settings) -> Epoch | None:
    """Return the newest epoch of the source; None before its first reader.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    rows = clickhouse.rows(
        query("latest_epoch", table=settings.clickhouse_table), parameters={"source": settings.source}
    )
    if not rows:
        return None
    epoch, owner, system_identifier, timeline = rows[0]
    return Epoch(int(epoch), owner, History(system_identifier, int(timeline)))


def raise_epoch(
    clickhouse: ClickHouse, settings: Settings, history: History, confirmed: Lsn, epoch: int, owner: str
) -> None:
    """Write a newer epoch: the fence.

    Raises:
        TransientError: another reader did so at the same moment; begin again.
        PipelineError: ClickHouse refuses or does not answer.
    """
    clickhouse.command(
        query("raise_epoch", table=settings.clickhouse_table),
        parameters={
            "source": settings.source,
            "epoch": epoch,
            "owner": owner,
            "system_identifier": history.system_identifier,
            "timeline": history.timeline,
            "slot": settings.slot,
            "confirmed_lsn": int(confirmed),
        },
        settings={"async_insert": 0},
    )
    newest = newest_epoch(clickhouse, settings)
    if newest is None or newest.owner != owner:
        raise TransientError("another reader has raised the epoch at the same moment")


def _settle(clickhouse: ClickHouse, settings: Settings, wait: Callable[[float], None]) -> None:
    patience_s = settings.insert_timeout_s + _GRACE_S
    running, waited_s = query("running_inserts"), 0.0
    while True:
        try:
            count = clickhouse.rows(running, parameters={"mark": mark(settings.source)})[0][0]
        except FatalError as error:
            if error.code != ACCESS_DENIED:
                raise
            log.warning(
                "running_queries_hidden",
                waiting_s=patience_s,
                todo="GRANT SELECT ON system.processes to spare this wait",
            )
            wait(patience_s)
            return
        if not count:
            return
        if waited_s >= patience_s:
            raise TransientError(
                f"{count} inserts of an older reader are still running in ClickHouse after {patience_s:g} s"
            )
        wait(_POLL_S)
        waited_s += _POLL_S


def ask(clickhouse: ClickHouse, settings: Settings, confirmed: Lsn) -> Held:
    """Return what ClickHouse holds from `confirmed` on, dead letters included.

    Raises:
        PipelineError: ClickHouse does not answer.
    """
    held = query("held", table=settings.clickhouse_table)
    table = clickhouse.arrow(held, parameters={"source": settings.source, "from_lsn": int(confirmed)})
    columns = (arrow.values(table.column(name), np.uint64) for name in ("cdc_lsn", "first", "last"))
    return Held(*columns)


def _other_history(settings: Settings, known: History, found: History, confirmed: Lsn) -> PipelineError:
    return FatalError(
        f"ClickHouse holds source {settings.source!r} of system {known.system_identifier}, timeline {known.timeline}, "
        f"but slot {settings.slot!r} at {confirmed} belongs to system {found.system_identifier}, timeline "
        f"{found.timeline}: positions of one mean nothing in the other, and events between what is stored and where "
        "the slot begins may be missing",
        todo="Check OUTHAUL_POSTGRES_DSN; if this is the new primary, go on with `outhaul setup --rebind`",
        exit_code=Exit.OTHER_HISTORY,
    )
