"""One server -> the state of its part of the pipeline, for `outhaul status` and `outhaul top`.

Edge: each function asks one server, over a connection that the caller opened and may keep.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.cdc_reader.outbox.heal_due import due
from outhaul.cdc_reader.session.pause_requests import newest_request
from outhaul.cdc_reader.session.reader_state import TTL_S, ReaderState
from outhaul.cdc_reader.slots import retained_wal
from outhaul.sink.redis.failures import Failure, recent
from outhaul.sink.redis_keys import ANY_WORKER, pulse_key, reader_key, reconnecting_key, standby_key
from outhaul.sink.sql import query
from outhaul.sink.view_check import flaws
from outhaul.sink.view_gaps import gaps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.cdc_reader.session.pause import Pause
    from outhaul.cdc_reader.slots.retained_wal import Slot
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.position import Lsn
    from outhaul.sink.redis.payloads import Payloads
    from outhaul.sink.settings import Settings, Stream
    from outhaul.sink.view_gaps import Gap

_PARTS = """
    SELECT count(), sum(bytes_on_disk) FROM system.parts
    WHERE database = currentDatabase() AND has({tables:Array(String)}, table) AND active"""

# A message that has just arrived is no problem, so the queue is read again after this time, in seconds.
_SECOND_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class PostgresState:
    """The slot; None if it does not exist."""

    slot: Slot | None


@dataclass(frozen=True, slots=True)
class RedisState:
    """The state that the reader reports, if any, and the queue to the workers."""

    reader: ReaderState | None
    # Why the reader has no session now, as it reports.
    reconnecting: str | None
    # Host and process of the reader that waits for the slot, as it reports.
    standby: str | None
    queue_length: int
    # False if messages wait and no task has begun in the last seconds.
    is_worked: bool
    # How long ago the reader reported its state, in seconds.
    reader_age_s: float = 0.0
    # Unexpected failures of the last minutes, and the errors with which processes ended.
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class ClickHouseState:
    """What is stored, whether a copy is due, and the pause that is recorded there."""

    rows: int
    dead_letters: int
    parts: int
    bytes_on_disk: int
    last_stored_at: float | None
    # A slot skipped events, and not all of them have been copied from the outbox yet.
    is_copy_due: bool
    # The pause that an operator asked for, whether or not a reader runs.
    pause: Pause | None
    # Why a materialized view may not get each event exactly once, and what to type.
    views_not_exact: tuple[str, ...] = ()
    # Events that materialized views lack because they refused them.
    view_gaps: tuple[Gap, ...] = ()


def ask_postgres(conn: Connection, stream: Stream, end: Lsn | None = None) -> PostgresState:
    """Read the slot on the server that has it; `end` is the end of the primary's WAL, if that is another server.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    return PostgresState(retained_wal.fetch_slot(conn, stream.slot, end))


def ask_redis(payloads: Payloads, stream: Stream) -> RedisState:
    """Read the reader's state and the queue; takes a second longer if messages wait and no worker takes them.

    Raises:
        PipelineError: Redis refuses or does not answer.
    """
    line, age_s = payloads.text_and_age(reader_key(stream.fence), TTL_S)
    reader = ReaderState.from_json(line) if line else None
    return RedisState(
        reader=reader,
        reconnecting=payloads.text(reconnecting_key(stream.fence)) if reader is None else None,
        standby=payloads.text(standby_key(stream.fence)),
        queue_length=(waiting := payloads.length(stream.settings.queue_key)),
        is_worked=not waiting or _is_worked(payloads, stream.settings),
        reader_age_s=age_s,
        failures=recent(payloads, stream.settings),
    )


def _is_worked(payloads: Payloads, settings: Settings) -> bool:
    for wait_s in (0.0, _SECOND_LOOK_S):
        time.sleep(wait_s)
        if payloads.text(pulse_key(settings.source, ANY_WORKER)) or not payloads.length(settings.queue_key):
            return True
    return False


def ask_clickhouse(clickhouse: ClickHouse, streams: Sequence[Stream]) -> ClickHouseState:
    """Count what a pipeline has stored; `streams` are one or more of its streams.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    settings = streams[0].settings
    source, outboxes = {"source": settings.source}, settings.outboxes()
    stored = [
        clickhouse.rows(query("stored_total", table=one.clickhouse_table), parameters=source)[0] for one in outboxes
    ]
    dead = [
        clickhouse.rows(
            query("letters_total", dead_letters=one.dead_letters_table, where="discarded_at IS NULL"),
            parameters=source,
        )[0][0]
        for one in outboxes
    ]
    parts, size = clickhouse.rows(_PARTS, parameters={"tables": [one.clickhouse_table for one in outboxes]})[0]
    return ClickHouseState(
        rows=sum(rows for rows, _ in stored),
        dead_letters=sum(dead),
        parts=parts,
        bytes_on_disk=size,
        last_stored_at=max((float(last) for rows, last in stored if rows), default=None),
        is_copy_due=bool(due(clickhouse, streams)),
        pause=newest_request(clickhouse, settings).pause,
        views_not_exact=tuple(map(str, flaws(clickhouse, settings))),
        view_gaps=tuple(gap for one in outboxes for gap in gaps(clickhouse, one)),
    )
