"""Lane of a source -> an epoch of our own, and older inserts at rest.

Edge: ClickHouse, where the fence stands. Each lane (the stream, and copies from the outbox) has one of its own, so that
neither shuts out the other. From the moment a newer epoch is written, ClickHouse refuses every insert of an older
owner that begins. Every insert is listed among the running queries before it asks for the epoch, so it is either
refused, or seen and waited for. No clock is involved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from outhaul.cdc_reader.postgres.slot import History
from outhaul.sink.codes import ACCESS_DENIED
from outhaul.sink.errors import FatalError, TransientError
from outhaul.sink.keys import fence, mark
from outhaul.sink.sql import query

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.position import Lsn
    from outhaul.sink.settings import Settings

log = structlog.get_logger("outhaul.reader")

_POLL_S = 0.1
# Stands behind the slot's name in an epoch whose slot is a standby's; no name of ours has such a character.
_OF_STANDBY = "@standby"
# Beyond the server's own limit for an insert; it ends a statement between two blocks, not in the middle of one.
_GRACE_S = 10


@dataclass(frozen=True, slots=True)
class Epoch:
    """An owner's turn, as ClickHouse remembers it."""

    epoch: int
    owner: str
    history: History


def newest_epoch(clickhouse: ClickHouse, settings: Settings, lane: str = "") -> Epoch | None:
    """Return the newest epoch of a lane, or of the stream; None before its first owner.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    rows = clickhouse.rows(
        query("latest_epoch", epochs=settings.epochs_table), parameters={"source": _fence(settings, lane)}
    )
    if not rows:
        return None
    epoch, owner, system_identifier, timeline, slot = rows[0]
    history = History(system_identifier, int(timeline), of_standby=str(slot).endswith(_OF_STANDBY))
    return Epoch(int(epoch), owner, history)


def raise_epoch(
    clickhouse: ClickHouse,
    settings: Settings,
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
        query("raise_epoch", epochs=settings.epochs_table),
        parameters={
            "source": _fence(settings, lane),
            "epoch": epoch,
            "owner": owner,
            "system_identifier": history.system_identifier,
            "timeline": history.timeline,
            "slot": settings.slot + (_OF_STANDBY if history.of_standby else ""),
            "confirmed_lsn": int(confirmed),
        },
        settings={"async_insert": 0},
    )
    newest = newest_epoch(clickhouse, settings, lane)
    if newest is None or newest.owner != owner:
        raise TransientError("another owner has raised the epoch at the same moment")


def settle(clickhouse: ClickHouse, settings: Settings, wait: Callable[[float], None], *, lane: str = "") -> None:
    """Wait until no insert of the lane runs that began before the fence.

    Raises:
        TransientError: one does not end; begin again.
        PipelineError: ClickHouse refuses or does not answer.
    """
    patience_s = settings.insert_timeout_s + _GRACE_S
    running, waited_s = query("running_inserts"), 0.0
    while True:
        try:
            count = clickhouse.rows(running, parameters={"mark": mark(_fence(settings, lane))})[0][0]
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
                f"{count} inserts of an older owner are still running in ClickHouse after {patience_s:g} s"
            )
        wait(_POLL_S)
        waited_s += _POLL_S


def _fence(settings: Settings, lane: str) -> str:
    return fence(settings.source, lane) if lane else settings.fence
