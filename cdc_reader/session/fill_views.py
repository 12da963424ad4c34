"""Events that a view has refused -> the view, as soon as it takes them.

Edge: ClickHouse. A thread tries twice a minute; whatever a view does, the stream goes on.

Source: docs/adr/0017-a-view-receives-each-event-once.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from outhaul.sink.errors import PipelineError
from outhaul.sink.fence import newest_epoch
from outhaul.sink.lanes import COPY, COPY_DONE
from outhaul.sink.view_gaps import ViewFeed

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.session.loop_events import Events
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.position import Lsn
    from outhaul.sink.settings import Stream

log = structlog.get_logger("outhaul.reader")

_EVERY_S = 30.0


def fill_views(clickhouse: ClickHouse, stream: Stream, owner: str, confirmed: Lsn) -> None:
    """Send to the views what they lack.

    Args:
        clickhouse: the server.
        stream: the stream of the session.
        owner: owner of its epoch.
        confirmed: position that the slot may confirm: whatever ends below it is never sent by a worker again.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    newest = newest_epoch(clickhouse, stream.settings, COPY)
    for outbox in stream.settings.outboxes():
        feed = ViewFeed(clickhouse, outbox, outbox.clickhouse_table, stream.lane, owner)
        # The batches of other shards may be above this shard's position, so only single events are filled there.
        feed.fill(
            confirmed if stream.shard is None else 0,
            copies=stream.shard is None and (newest is None or newest.owner == COPY_DONE),
        )


def keep_views_filled(events: Events, fill: Callable[[], None]) -> None:
    """Call `fill` twice a minute until the session ends.

    Raises:
        SessionOverError: the session ends.
    """
    while True:
        events.wait(_EVERY_S)
        try:
            fill()
        except PipelineError as error:
            log.warning("views_not_filled", error=error)
