"""An operator's word -> a row in ClickHouse -> the reader's gate; survives the reader, and Redis with all of its data.

Edge: ClickHouse keeps the word, Redis carries the news. A reader leaves a mark in Redis and then asks ClickHouse;
whoever writes a word takes the mark away, and the reader, which looks for it once a second, asks again. So it does when
Redis has lost its data, or was away. The mark is set before the question is asked: a word that is written in between
takes it away again, and is never missed. Why so: docs/adr/0007-a-pause-is-kept-in-clickhouse.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from outhaul.cdc_reader.session.pause import Pause, Wished
from outhaul.sink.errors import TransientError
from outhaul.sink.redis_keys import pause_known_key
from outhaul.sink.sql import query

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.session.loop_events import Events
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.redis.payloads import Payloads
    from outhaul.sink.settings import Settings

log = structlog.get_logger("outhaul.reader")

_LOOK_S = 1.0


def ask(clickhouse: ClickHouse, settings: Settings) -> Wished:
    """Return the newest word; a pause whose time is over is none.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    rows = clickhouse.rows(query("latest_pause", table=settings.control_table), parameters={"source": settings.source})
    if not rows:
        return Wished()
    is_paused, since, by, reason, until, left_s = rows[0]
    if not is_paused or (left_s is not None and left_s <= 0):
        return Wished()
    return Wished(Pause(since, by, reason, until), left_s)


def keep(clickhouse: ClickHouse, settings: Settings, *, is_paused: bool, for_s: int, by: str, reason: str) -> None:
    """Write a word; `for_s` seconds of 0 are a pause without end.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    clickhouse.command(
        query("record_pause", table=settings.control_table),
        parameters={"source": settings.source, "is_paused": is_paused, "for_s": for_s, "by": by, "reason": reason},
        settings={"async_insert": 0},
    )


def heed(events: Events, payloads: Payloads, fence: str, ask_newest: Callable[[], Wished]) -> None:
    """Tell the loop the newest word: at once, and as soon as there is another; runs until the session is over.

    A ClickHouse or Redis that does not answer changes nothing: what was heard last goes on to hold.

    Raises:
        SessionOverError: the session ends.
        PipelineError: ClickHouse or Redis refuses.
    """
    mark, is_known, last = pause_known_key(fence), False, Wished()
    while True:
        try:
            if not is_known or payloads.text(mark) is None:
                is_known = False
                payloads.set(mark, "1")
                wished = ask_newest()
                is_known = True
                if wished.pause != last.pause:
                    _say(wished)
                last = wished
                events.put(wished)
        except TransientError:
            # Redis may have been emptied, or a word written, while it was away. Other stages say that it is.
            is_known = False
        events.wait(_LOOK_S)


def _say(wished: Wished) -> None:
    if wished.pause:
        log.info("paused", left_s=wished.left_s)
    else:
        log.info("resumed")
