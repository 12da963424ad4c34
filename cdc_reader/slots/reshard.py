"""A stream that is divided into other shards than the settings say -> divided as they say, without loss or repetition.

Edge: Postgres and ClickHouse; the order of the steps is what matters. First, the notes that heals are due are written.
Then every former stream is ended, its fence is raised, and its inserts have ended. Only then the first new slot is
created. So no position that a former stream stored is after the start of a new one. Events that were committed in
between are in the outbox: a heal of each new stream copies its own.

After a crash at any point, the notes say that heals are due, and the same command continues.

Source: https://www.postgresql.org/docs/current/logical-replication-row-filter.html,
docs/adr/0012-a-shard-is-a-lane.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from outhaul.cdc_reader.outbox.heal import heal_all
from outhaul.cdc_reader.outbox.heal_due import due, note_done, note_due
from outhaul.cdc_reader.postgres.connect import connect_primary
from outhaul.cdc_reader.postgres.slot_view import slot_facts
from outhaul.cdc_reader.slots.change import drop, recreate, take_over
from outhaul.cdc_reader.slots.change_lock import hold
from outhaul.sink.position import NO_LSN
from outhaul.sink.quoting import postgres_identifier
from outhaul.sink.settings import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from outhaul.cdc_reader.outbox.compare import Compared
    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.settings import Settings

log = structlog.get_logger("outhaul.slot")

_GIVE_UP_S = 120.0


def former_streams(conn: Connection, settings: Settings) -> list[Stream]:
    """Return the streams of this pipeline that have slots and are not among the streams of the settings.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    rows = conn.fetch(
        "SELECT slot_name FROM pg_replication_slots WHERE database = current_database() AND plugin = 'pgoutput' "
        "AND slot_name ~ %s ORDER BY slot_name",
        [rf"^{settings.slot}(_\d+of\d+)?$"],
    )
    wanted = {stream.slot for stream in settings.streams()}
    return [_stream_of(settings, row["slot_name"]) for row in rows if row["slot_name"] not in wanted]


def _stream_of(settings: Settings, slot: str) -> Stream:
    suffix = slot.removeprefix(settings.slot)
    if not suffix:
        return settings.undivided
    shard, shards = map(int, suffix.removeprefix("_").split("of"))
    return Stream(shard, shards, settings)


def unfinished(settings: Settings, clickhouse: ClickHouse) -> list[Stream]:
    """Return the streams for which an interrupted division has noted a heal that is still due.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    return [stream for stream, _ in due(clickhouse, settings.streams())]


def end(settings: Settings, clickhouse: ClickHouse, former: list[Stream]) -> None:
    """End the former streams: their sessions, slots and publications.

    Raises:
        PipelineError: a server refuses or does not answer; call this again.
    """
    note_due(clickhouse, settings.streams(), NO_LSN)
    for stream in former:
        with hold(stream) as conn:
            facts = slot_facts(conn, stream)
            at = facts.confirmed if facts and facts.confirmed else NO_LSN
            take_over(stream, clickhouse, at)
            drop(conn, stream)
        _drop_publication(stream)
        log.info("stream_ended", slot=stream.slot, confirmed_lsn=str(at))


def _drop_publication(stream: Stream) -> None:
    with connect_primary(stream.settings) as conn:
        conn.execute(f"DROP PUBLICATION IF EXISTS {postgres_identifier(stream.publication)}")


def begin(
    streams: Sequence[Stream],
    clickhouse: ClickHouse,
    *,
    waiting: Callable[[], None],
    on_range: Callable[[Compared, int], None],
) -> Iterator[tuple[Stream, int]]:
    """Create the slot of each stream, and copy the events that it skips; yield the number of copied rows for each.

    A worker must run. The reader of a stream may start as soon as its slot exists.

    Raises:
        PipelineError: a server refuses or does not answer; heals stay due.
    """
    for stream in streams:
        with recreate(stream, clickhouse, accept_loss=False, waiting=waiting) as line:
            notes = due(clickhouse, (stream,))
            done = heal_all(stream, line, on_range, give_up_s=_GIVE_UP_S)
            note_done(clickhouse, notes)
        yield stream, sum(one.stored for one in done)
