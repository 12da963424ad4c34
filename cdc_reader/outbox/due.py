"""A slot that skipped events -> a heal is due, until one has come to its end.

Edge: ClickHouse. The note is made before anything is skipped, beside the epochs, so that whoever dies in between
leaves a heal too many and never one too few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdc_reader.fence import newest_epoch, raise_epoch
from cdc_reader.slot import History
from sink.position import NO_LSN

if TYPE_CHECKING:
    from sink.clickhouse import ClickHouse
    from sink.position import Lsn
    from sink.settings import Settings

_LANE = "heal"
_DUE, _DONE, _ACCEPTED = "due", "done", "loss accepted"


def due(clickhouse: ClickHouse, settings: Settings) -> int | None:
    """Return the number of the note that says that events were skipped and no heal has looked for them since.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    newest = newest_epoch(clickhouse, settings, _LANE)
    return newest.epoch if newest is not None and newest.owner == _DUE else None


def note_due(clickhouse: ClickHouse, settings: Settings, at: Lsn) -> None:
    """Note that events from `at` on are about to be skipped.

    Raises:
        PipelineError: ClickHouse refuses or does not answer; nothing may be skipped then.
    """
    _note(clickhouse, settings, _DUE, at)


def note_done(clickhouse: ClickHouse, settings: Settings, number: int | None) -> None:
    """Note that a heal over all rows, begun when note `number` was the newest, has come to its end.

    Raises:
        PipelineError: ClickHouse refuses or does not answer; the heal stays due, and finds nothing to do.
    """
    if number is not None and due(clickhouse, settings) == number:
        _note(clickhouse, settings, _DONE, NO_LSN)


def note_accepted(clickhouse: ClickHouse, settings: Settings, at: Lsn) -> None:
    """Note that an operator has accepted the loss of what is skipped from `at` on.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    _note(clickhouse, settings, _ACCEPTED, at)


def _note(clickhouse: ClickHouse, settings: Settings, what: str, at: Lsn) -> None:
    newest = newest_epoch(clickhouse, settings, _LANE)
    raise_epoch(clickhouse, settings, History("", 0), at, 1 + (newest.epoch if newest else 0), what, lane=_LANE)
