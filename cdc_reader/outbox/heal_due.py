"""A slot that skipped events -> a heal is due, until one has come to its end.

Edge: ClickHouse. The note is made before anything is skipped, beside the epochs, so that whoever dies in between
leaves a heal too many and never one too few.
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
"""Streams of which a heal is due, each with the number of the note that says so."""


def due(clickhouse: ClickHouse, streams: Iterable[Stream]) -> Notes:
    """Return the notes that say that events were skipped and no heal has looked for them since; a stream has one.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    found = ((stream, newest_epoch(clickhouse, stream.settings, _lane(stream))) for stream in streams)
    return tuple((stream, newest.epoch) for stream, newest in found if newest is not None and newest.owner == _DUE)


def note_due(clickhouse: ClickHouse, streams: Iterable[Stream], at: Lsn) -> None:
    """Note that events from `at` on are about to be skipped.

    Raises:
        PipelineError: ClickHouse refuses or does not answer; nothing may be skipped then.
    """
    _note(clickhouse, streams, _DUE, at)


def note_done(clickhouse: ClickHouse, notes: Notes) -> None:
    """Note that a heal over all rows of these streams, begun when these notes were the newest, has come to its end.

    Raises:
        PipelineError: ClickHouse refuses or does not answer; the heal stays due, and finds nothing to do.
    """
    for stream, number in notes:
        if [newest for _, newest in due(clickhouse, (stream,))] == [number]:
            _note(clickhouse, (stream,), _DONE, NO_LSN)


def note_accepted(clickhouse: ClickHouse, streams: Iterable[Stream], at: Lsn) -> None:
    """Note that an operator has accepted the loss of what is skipped from `at` on.

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
