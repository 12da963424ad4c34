"""Lane of a source -> a new epoch, and a wait until the inserts that began before it have ended.

Edge: ClickHouse, which keeps the fence. Each lane has a fence of its own (sink/lanes.py). Once a newer epoch is
written, ClickHouse refuses every insert of an older owner that begins after that. ClickHouse lists each insert among
the running queries before the insert reads the epoch. So an older insert is either refused, or it is listed and
`wait_for_older_inserts` waits for it. No clock is involved.

Source: https://clickhouse.com/docs/operations/system-tables/processes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from outhaul.sink.clickhouse_errors import ACCESS_DENIED
from outhaul.sink.errors import FatalError, TransientError
from outhaul.sink.lanes import fence, mark
from outhaul.sink.position import History
from outhaul.sink.sql import query

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.position import Lsn
    from outhaul.sink.settings import Settings, Stream

log = structlog.get_logger("outhaul.sink")

_POLL_S = 0.05
# Suffix of the slot's name in an epoch whose slot is on a standby; no slot name contains an @.
_OF_STANDBY = "@standby"
# Added to the server's time limit for an insert, in seconds: the server ends a statement only between two blocks.
_GRACE_S = 10


@dataclass(frozen=True, slots=True)
class Epoch:
    """One owner's epoch, as ClickHouse has it."""

    epoch: int
    owner: str
    history: History


def newest_epoch(clickhouse: ClickHouse, settings: Settings, lane: str) -> Epoch | None:
    """Return the newest epoch of a lane; None if the lane has had no owner yet.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    parameters = {"source": fence(settings.source, lane)}
    rows = clickhouse.rows(query("latest_epoch", epochs=settings.epochs_table), parameters=parameters)
    if not rows:
        return None
    epoch, owner, system_identifier, timeline, slot = rows[0]
    history = History(system_identifier, int(timeline), of_standby=str(slot).endswith(_OF_STANDBY))
    return Epoch(int(epoch), owner, history)


def raise_epoch(
    clickhouse: ClickHouse,
    stream: Stream,
    history: History,
    confirmed: Lsn,
    epoch: int,
    owner: str,
    *,
    lane: str = "",
) -> None:
    """Write a newer epoch, which fences off older owners of the lane; by default, of the stream's lane.

    Args:
        clickhouse: where the fence is.
        stream: the stream of the new owner.
        history: history of the positions of this epoch.
        confirmed: the slot's confirmed flush.
        epoch: its number.
        owner: name of the new owner.
        lane: the lane, if it is not the stream's.

    Raises:
        TransientError: another owner has done the same at the same moment; begin again.
        PipelineError: ClickHouse refuses or does not answer.
    """
    clickhouse.command(
        query("raise_epoch", epochs=stream.settings.epochs_table),
        parameters={
            "source": fence(stream.settings.source, lane or stream.lane),
            "epoch": epoch,
            "owner": owner,
            "system_identifier": history.system_identifier,
            "timeline": history.timeline,
            "slot": stream.slot + (_OF_STANDBY if history.of_standby else ""),
            "confirmed_lsn": int(confirmed),
        },
        settings={"async_insert": 0},
    )
    newest = newest_epoch(clickhouse, stream.settings, lane or stream.lane)
    if newest is None or newest.owner != owner:
        raise TransientError("another owner has raised the epoch at the same moment")


def wait_for_older_inserts(
    clickhouse: ClickHouse, settings: Settings, lane: str | None, wait: Callable[[float], None]
) -> None:
    """Wait until the inserts that run now have ended.

    Args:
        clickhouse: where they run.
        settings: source, and time limit of an insert.
        lane: the lane of the inserts; None for all lanes of the source.
        wait: waits for a number of seconds.

    Raises:
        TransientError: one of the inserts does not end; begin again.
        PipelineError: ClickHouse refuses or does not answer.
    """
    max_wait_s, waited_s = settings.insert_timeout_s + _GRACE_S, 0.0
    name = settings.source if lane is None else fence(settings.source, lane)
    bound = {"mark": mark(name), "all_lanes": lane is None}
    older: set[str] | None = None
    while True:
        try:
            running = {row[0] for row in clickhouse.rows(query("running_inserts"), parameters=bound)}
        except FatalError as error:
            if error.code != ACCESS_DENIED:
                raise
            log.warning(
                "running_queries_hidden",
                waiting_s=max_wait_s,
                todo="GRANT SELECT ON system.processes to avoid this wait",
            )
            wait(max_wait_s)
            return
        older = running if older is None else older & running
        if not older:
            return
        if waited_s >= max_wait_s:
            raise TransientError(f"{len(older)} older inserts are still running in ClickHouse after {max_wait_s:g} s")
        wait(_POLL_S)
        waited_s += _POLL_S
