"""A pause request of an operator -> a row in ClickHouse -> the reader's gate.

Edge: ClickHouse stores the request, so it survives the reader and the loss of Redis. Redis announces it. The reader
sets a mark in Redis and then queries ClickHouse. Who writes a request deletes the mark. The reader checks the mark once
a second and, if it is missing, queries again; so it does when Redis has lost its data or was unreachable. The reader
sets the mark before its query, so a request that is written during the query deletes the mark again and is not missed.

Source: docs/adr/0007-a-pause-is-kept-in-clickhouse.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from outhaul.cdc_reader.session.pause import Pause, PauseRequest
from outhaul.sink.errors import TransientError
from outhaul.sink.redis_keys import pause_known_key
from outhaul.sink.replicas import IN_SEQUENCE, find_servers
from outhaul.sink.sql import query

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.session.loop_events import Events
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.redis.payloads import Payloads
    from outhaul.sink.settings import Settings

log = structlog.get_logger("outhaul.reader")

_CHECK_S = 1.0


def newest_request(clickhouse: ClickHouse, settings: Settings) -> PauseRequest:
    """Return the newest request, without a pause if its time is over.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    try:
        pauses = find_servers(clickhouse, settings).everywhere(settings.pauses_table)
    except TransientError:
        # A replica does not answer. A pause is not worth a wait for it, so the others are believed.
        pauses = settings.pauses_table
    rows = clickhouse.rows(
        query("latest_pause", pauses=pauses), parameters={"source": settings.source}, settings=IN_SEQUENCE
    )
    if not rows:
        return PauseRequest()
    is_paused, since, by, reason, until, left_s = rows[0]
    if not is_paused or (left_s is not None and left_s <= 0):
        return PauseRequest()
    return PauseRequest(Pause(since, by, reason, until), left_s)


def record_request(
    clickhouse: ClickHouse, settings: Settings, *, is_paused: bool, for_s: int, by: str, reason: str
) -> None:
    """Write a request; with `for_s` of 0 seconds, the pause has no end.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    # The number of the request must be the highest of all servers.
    known = find_servers(clickhouse, settings).everywhere(settings.pauses_table)
    clickhouse.command(
        query("record_pause", pauses=settings.pauses_table, known=known),
        parameters={"source": settings.source, "is_paused": is_paused, "for_s": for_s, "by": by, "reason": reason},
        settings={"async_insert": 0},
    )


def watch_requests(
    events: Events,
    payloads: Payloads,
    fence: str,
    ask_newest: Callable[[], PauseRequest],
    watch_views: Callable[[], None],
) -> None:
    """Send the newest request to the loop: at once, and after every change; run until the session ends.

    While ClickHouse or Redis does not answer, the last known request stays in force. At every turn, it also calls
    `watch_views`: one thread asks ClickHouse whatever may wait for an answer.

    Raises:
        SessionOverError: the session ends.
        PipelineError: ClickHouse or Redis refuses.
    """
    mark, is_known, last = pause_known_key(fence), False, PauseRequest()
    while True:
        try:
            if not is_known or payloads.text(mark) is None:
                is_known = False
                payloads.set(mark, "1")
                request = ask_newest()
                is_known = True
                if request.pause != last.pause:
                    _log_change(request)
                last = request
                events.put(request)
        except TransientError:
            # Meanwhile Redis may have lost its data, or a request may have been written. Other stages log the error.
            is_known = False
        watch_views()
        events.wait(_CHECK_S)


def _log_change(request: PauseRequest) -> None:
    if request.pause:
        log.info("paused", left_s=request.left_s)
    else:
        log.info("resumed")
