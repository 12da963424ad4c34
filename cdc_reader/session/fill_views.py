"""Events that a view has refused -> the view, as soon as it takes them.

Edge: ClickHouse. A thread tries every ten seconds; whatever a view does, the stream goes on.

Source: docs/adr/0017-a-view-receives-each-event-once.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from outhaul.sink.errors import PipelineError
from outhaul.sink.view_gaps import ViewFeed

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.session.loop_events import Events
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.settings import Stream

log = structlog.get_logger("outhaul.reader")

_EVERY_S = 10.0


def fill_views(clickhouse: ClickHouse, stream: Stream, owner: str) -> None:
    """Send to the views what they lack; of several shards, the first one does it for all.

    Args:
        clickhouse: the server.
        stream: the stream of the session.
        owner: owner of its epoch.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    if stream.shard:
        return
    for outbox in stream.settings.outboxes():
        ViewFeed(clickhouse, outbox, outbox.clickhouse_table, stream.lane, owner).fill()


def keep_views_filled(events: Events, fill: Callable[[], None]) -> None:
    """Call `fill` every ten seconds until the session ends.

    Raises:
        SessionOverError: the session ends.
    """
    while True:
        events.wait(_EVERY_S)
        try:
            fill()
        except PipelineError as error:
            log.warning("views_not_filled", error=error)
