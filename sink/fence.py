"""Lane of a source -> a new epoch, and the end of the inserts that began before it.

Edge: ClickHouse, which keeps the fence. Each lane (the stream, and copies from the outbox) has a fence of its own, so
that neither refuses the inserts of the other. From the moment a newer epoch is written, ClickHouse refuses every insert
of an older owner that begins. ClickHouse lists every insert among the running queries before the insert reads the
epoch. So an older insert is either refused, or it is seen and waited for. No clock is involved.
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
# Follows the slot's name in an epoch whose slot is a standby's; no slot name has such a character.
_OF_STANDBY = "@standby"
# Beyond the server's own limit for an insert, in seconds: the server ends a statement between two blocks only.
_GRACE_S = 10


@dataclass(frozen=True, slots=True)
class Epoch:
    """An owner's turn, as ClickHouse remembers it."""

    epoch: int
    owner: str
    history: History


def newest_epoch(clickhouse: ClickHouse, settings: Settings, lane: str) -> Epoch | None:
    """Return the newest epoch of a lane; None before its first owner.

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
    """Write a newer epoch: the fence of a lane, or of the stream.

    Raises:
        TransientError: another owner did so at the same moment; begin again.
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
    """Wait until the inserts that run now have ended: those of one lane, or of all lanes of the source if it is None.

    Raises:
        TransientError: one does not end; begin again.
        PipelineError: ClickHouse refuses or does not answer.
    """
    patience_s, waited_s = settings.insert_timeout_s + _GRACE_S, 0.0
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
                waiting_s=patience_s,
                todo="GRANT SELECT ON system.processes to spare this wait",
            )
            wait(patience_s)
            return
        older = running if older is None else older & running
        if not older:
            return
        if waited_s >= patience_s:
            raise TransientError(f"{len(older)} older inserts are still running in ClickHouse after {patience_s:g} s")
        wait(_POLL_S)
        waited_s += _POLL_S
