"""A slot that skipped events -> a note that a heal is due, until a heal has succeeded.

Edge: ClickHouse. The note is written before events are skipped, in the table of epochs. So a crash in between leads to
a heal that is not needed, and never to a heal that is missing.

Source: docs/adr/0008-the-outbox-is-a-second-log.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from outhaul.sink.fence import newest_epoch, raise_epoch
from outhaul.sink.lanes import STREAM
from outhaul.sink.position import NO_LSN, History

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.position import Lsn
    from outhaul.sink.settings import Stream

_DUE, _DONE, _ACCEPTED = "due", "done", "loss accepted"


Notes: TypeAlias = "tuple[tuple[Stream, int], ...]"
"""Streams for which a heal is due, each with the number of its note."""


def due(clickhouse: ClickHouse, streams: Iterable[Stream]) -> Notes:
    """Return the notes of streams that skipped events and were not healed since; a stream has one at most.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    found = ((stream, newest_epoch(clickhouse, stream.settings, _lane(stream))) for stream in streams)
    return tuple((stream, newest.epoch) for stream, newest in found if newest is not None and newest.owner == _DUE)


def note_due(clickhouse: ClickHouse, streams: Iterable[Stream], at: Lsn) -> None:
    """Note that events from `at` on are about to be skipped.

    Raises:
        PipelineError: ClickHouse refuses or does not answer; the caller must not skip events then.
    """
    _note(clickhouse, streams, _DUE, at)


def note_done(clickhouse: ClickHouse, notes: Notes) -> None:
    """Note that a heal over all rows of these streams has succeeded, if these notes are still the newest.

    Raises:
        PipelineError: ClickHouse refuses or does not answer; the heal stays due, and the next one copies nothing.
    """
    for stream, number in notes:
        if [newest for _, newest in due(clickhouse, (stream,))] == [number]:
            _note(clickhouse, (stream,), _DONE, NO_LSN)


def note_accepted(clickhouse: ClickHouse, streams: Iterable[Stream], at: Lsn) -> None:
    """Note that an operator accepts the loss of the events that are skipped from `at` on.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    _note(clickhouse, streams, _ACCEPTED, at)


def _note(clickhouse: ClickHouse, streams: Iterable[Stream], what: str, at: Lsn) -> None:
    for stream in streams:
        lane = _lane(stream)
        newest = newest_epoch(clickhouse, stream.settings, lane)
        raise_epoch(clickhouse, stream, History("", 0), at, 1 + (newest.epoch if newest else 0), what, lane=lane)


def _lane(stream: Stream) -> str:
    return f"heal{stream.lane.removeprefix(STREAM)}"
