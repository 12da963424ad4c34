"""Events that a view has refused -> the view, as soon as it takes them.

Edge: ClickHouse. A thread tries every ten seconds; whatever a view does, the stream goes on.

Source: docs/adr/0017-a-view-receives-each-event-once.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from outhaul.sink.errors import PipelineError
from outhaul.sink.fence import EpochOverError, as_owner
from outhaul.sink.view_gaps import ViewFeed

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.session.loop_events import Events
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.settings import Stream

log = structlog.get_logger("outhaul.reader")

_EVERY_S = 10.0


def fill_views(clickhouse: ClickHouse, stream: Stream, owner: str, epoch: int) -> None:
    """Send to the views what they lack; of several shards, the first one does it for all.

    Args:
        clickhouse: the server.
        stream: the stream of the session.
        owner: owner of its epoch.
        epoch: the epoch.

    Raises:
        EpochOverError: another reader has taken over, or ClickHouse was restarted.
        PipelineError: ClickHouse refuses or does not answer.
    """
    if stream.shard:
        return
    with as_owner(clickhouse, stream.settings, stream.lane, epoch, owner):
        for outbox in stream.settings.outboxes():
            ViewFeed(clickhouse, outbox, outbox.clickhouse_table, stream.lane, owner).fill()


def keep_views_filled(events: Events, fill: Callable[[], None]) -> None:
    """Call `fill` every ten seconds until the session ends.

    Raises:
        SessionOverError: the session ends.
        EpochOverError: the next session fills them.
    """
    while True:
        events.wait(_EVERY_S)
        try:
            fill()
        except EpochOverError:
            # No batch may come for a long time whose report would end the session.
            raise
        except PipelineError as error:
            log.warning("views_not_filled", error=error)
