"""`outhaul pause` and `outhaul resume` -> the word is kept, and what the reader makes of it.

Edge: ClickHouse and Redis. Both must answer before anything is written; Postgres is not asked.
"""

from __future__ import annotations

import getpass
import os
import socket
import time
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from outhaul.cdc_reader.postgres.preflight import check_clickhouse
from outhaul.cdc_reader.session.pause_requests import ask, keep
from outhaul.cdc_reader.session.state import ReaderState
from outhaul.sink.errors import TransientError
from outhaul.sink.keys import heard_key, reader_key

if TYPE_CHECKING:
    from outhaul.cdc_reader.session.pause import Pause
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.redis.payloads import Payloads
    from outhaul.sink.settings import Settings

_POLL_S = 0.1
_MAX_REASON = 200


class Reader(StrEnum):
    """What the running reader makes of the newest word."""

    NONE = "none"  # there is none; the word holds for the next one
    SILENT = "silent"  # it has not said that it heard
    FINISHING = "finishing"  # it takes no rows, but batches in flight are not stored yet
    PAUSED = "paused"  # it takes no rows, and nothing is in flight
    RUNNING = "running"  # it takes rows


_IN_ORDER = (Reader.SILENT, Reader.FINISHING, Reader.RUNNING, Reader.PAUSED, Reader.NONE)


@dataclass(frozen=True, slots=True)
class Told:
    """The pause that holds now, if one does, and the reader's answer."""

    pause: Pause | None
    reader: Reader
    in_flight_batches: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON types; times in Unix seconds."""
        return asdict(self) | {"is_paused": self.pause is not None}


def pause(
    settings: Settings, payloads: Payloads, clickhouse: ClickHouse, *, for_s: int, reason: str, wait_s: float
) -> Told:
    """Pause, and wait until the reader has finished what is in flight; a later word replaces an earlier one.

    Args:
        settings: names.
        payloads: Redis.
        clickhouse: keeps the word.
        for_s: seconds until the pause ends by itself; 0 for never.
        reason: for whoever looks at `outhaul status`; cut to one line.
        wait_s: longest wait for the reader, in seconds.

    Raises:
        PipelineError: a server refuses or does not answer.
    """
    reason = " ".join(reason.split())[:_MAX_REASON]
    return _say(settings, payloads, clickhouse, is_paused=True, for_s=for_s, reason=reason, wait_s=wait_s)


def resume(settings: Settings, payloads: Payloads, clickhouse: ClickHouse, *, wait_s: float) -> Told:
    """End a pause, and wait until the reader takes rows again; `wait_s` seconds at most.

    Raises:
        PipelineError: a server refuses or does not answer.
    """
    return _say(settings, payloads, clickhouse, is_paused=False, for_s=0, reason="", wait_s=wait_s)


def _say(
    settings: Settings,
    payloads: Payloads,
    clickhouse: ClickHouse,
    *,
    is_paused: bool,
    for_s: int,
    reason: str,
    wait_s: float,
) -> Told:
    marks = [heard_key(stream.fence) for stream in settings.streams()]
    payloads.text(marks[0])
    check_clickhouse(settings, clickhouse)
    keep(clickhouse, settings, is_paused=is_paused, for_s=for_s, by=_who(), reason=reason)
    held = ask(clickhouse, settings).pause
    try:
        payloads.drop(marks)
        return _answer(settings, payloads, held, wait_s)
    except TransientError as error:
        raise TransientError(
            f"the word is kept, but whether a running reader has heard it is not known: {error.message}",
            todo="Say it again when Redis answers",
            exit_code=error.exit_code,
        ) from error


def _answer(settings: Settings, payloads: Payloads, held: Pause | None, wait_s: float) -> Told:
    deadline = time.monotonic() + wait_s
    while True:
        lines = [payloads.text(reader_key(stream.fence)) for stream in settings.streams()]
        told = _of_all([_told(ReaderState.from_json(line) if line else None, held) for line in lines])
        if told.reader not in {Reader.SILENT, Reader.FINISHING} or time.monotonic() >= deadline:
            return told
        time.sleep(_POLL_S)


def _of_all(told: list[Told]) -> Told:
    """Let the reader speak for all of them that is farthest from what was asked for."""
    first = min(told, key=lambda one: _IN_ORDER.index(one.reader))
    return replace(first, in_flight_batches=sum(one.in_flight_batches for one in told))


def _told(state: ReaderState | None, held: Pause | None) -> Told:
    if state is None:
        return Told(held, Reader.NONE)
    if state.pause != held or state.phase == "recovering":
        return Told(held, Reader.SILENT, state.in_flight_batches)
    if held is None:
        return Told(held, Reader.RUNNING, state.in_flight_batches)
    reader = Reader.PAUSED if state.phase == "paused" else Reader.FINISHING
    return Told(held, reader, state.in_flight_batches)


def _who() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        # A container's user may have no name.
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname()}"
