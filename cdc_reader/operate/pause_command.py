"""`outhaul pause` or `outhaul resume` -> the request is recorded, and whether the reader has followed it.

Edge: ClickHouse and Redis. Both must answer before anything is written; Postgres is not needed.
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
from outhaul.cdc_reader.session.pause_requests import newest_request, record_request
from outhaul.cdc_reader.session.reader_state import ReaderState
from outhaul.sink.errors import TransientError
from outhaul.sink.redis_keys import pause_known_key, reader_key

if TYPE_CHECKING:
    from outhaul.cdc_reader.session.pause import Pause
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.redis.payloads import Payloads
    from outhaul.sink.settings import Settings

_POLL_S = 0.1
_MAX_REASON = 200


class Reader(StrEnum):
    """How far the running reader has followed the newest request."""

    NONE = "none"  # no reader runs; the request applies to the next one
    SILENT = "silent"  # the reader has not confirmed the request
    FINISHING = "finishing"  # the reader takes no rows, but batches in flight are not stored yet
    PAUSED = "paused"  # the reader takes no rows, and nothing is in flight
    RUNNING = "running"  # the reader takes rows


_IN_ORDER = (Reader.SILENT, Reader.FINISHING, Reader.RUNNING, Reader.PAUSED, Reader.NONE)


@dataclass(frozen=True, slots=True)
class PauseResult:
    """The pause that holds now, if any, and how far the reader has followed the request."""

    pause: Pause | None
    reader: Reader
    in_flight_batches: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON types; times in Unix seconds."""
        return asdict(self) | {"is_paused": self.pause is not None}


def pause(
    settings: Settings, payloads: Payloads, clickhouse: ClickHouse, *, for_s: int, reason: str, wait_s: float
) -> PauseResult:
    """Pause, and wait until nothing is in flight; a later request replaces an earlier one.

    Args:
        settings: names.
        payloads: Redis.
        clickhouse: where the request is recorded.
        for_s: seconds until the pause ends by itself; 0 for never.
        reason: text for `outhaul status`; cut to one line.
        wait_s: longest wait for the reader, in seconds.

    Raises:
        PipelineError: a server refuses or does not answer.
    """
    reason = " ".join(reason.split())[:_MAX_REASON]
    return _request(settings, payloads, clickhouse, is_paused=True, for_s=for_s, reason=reason, wait_s=wait_s)


def resume(settings: Settings, payloads: Payloads, clickhouse: ClickHouse, *, wait_s: float) -> PauseResult:
    """End a pause, and wait until the reader takes rows again; `wait_s` seconds at most.

    Raises:
        PipelineError: a server refuses or does not answer.
    """
    return _request(settings, payloads, clickhouse, is_paused=False, for_s=0, reason="", wait_s=wait_s)


def _request(
    settings: Settings,
    payloads: Payloads,
    clickhouse: ClickHouse,
    *,
    is_paused: bool,
    for_s: int,
    reason: str,
    wait_s: float,
) -> PauseResult:
    marks = [pause_known_key(stream.fence) for stream in settings.streams()]
    payloads.text(marks[0])
    check_clickhouse(settings, clickhouse)
    record_request(clickhouse, settings, is_paused=is_paused, for_s=for_s, by=_user_at_host(), reason=reason)
    held = newest_request(clickhouse, settings).pause
    try:
        payloads.drop(marks)
        return _wait(settings, payloads, held, wait_s)
    except TransientError as error:
        raise TransientError(
            f"the request is recorded, but not whether a running reader has followed it: {error.message}",
            todo="Type the command again when Redis answers",
            exit_code=error.exit_code,
        ) from error


def _wait(settings: Settings, payloads: Payloads, held: Pause | None, wait_s: float) -> PauseResult:
    deadline = time.monotonic() + wait_s
    while True:
        lines = [payloads.text(reader_key(stream.fence)) for stream in settings.streams()]
        found = _slowest([_result(ReaderState.from_json(line) if line else None, held) for line in lines])
        if found.reader not in {Reader.SILENT, Reader.FINISHING} or time.monotonic() >= deadline:
            return found
        time.sleep(_POLL_S)


def _slowest(results: list[PauseResult]) -> PauseResult:
    """Return the result of the reader that has followed the request least, with the batches in flight of all."""
    first = min(results, key=lambda one: _IN_ORDER.index(one.reader))
    return replace(first, in_flight_batches=sum(one.in_flight_batches for one in results))


def _result(state: ReaderState | None, held: Pause | None) -> PauseResult:
    if state is None:
        return PauseResult(held, Reader.NONE)
    if state.pause != held or state.phase == "recovering":
        return PauseResult(held, Reader.SILENT, state.in_flight_batches)
    if held is None:
        return PauseResult(held, Reader.RUNNING, state.in_flight_batches)
    reader = Reader.PAUSED if state.phase == "paused" else Reader.FINISHING
    return PauseResult(held, reader, state.in_flight_batches)


def _user_at_host() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        # A container's user may have no name.
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname()}"
