"""Three servers and the state that the reader reports -> one snapshot, with what is wrong.

Edge: asks all three servers. A server that does not answer is listed as wrong.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from outhaul.cdc_reader.operate.status.ask import PostgresState, ask_clickhouse, ask_postgres, ask_redis
from outhaul.cdc_reader.operate.status.problems import STUCK_S, judge
from outhaul.cdc_reader.postgres.connect import connect_stream, end_of_primary
from outhaul.cdc_reader.session.ledger import RESEND_S
from outhaul.cdc_reader.slots import retained_wal
from outhaul.sink.errors import PipelineError
from outhaul.sink.redis.payloads import ALIVE_S, DEAF_S, PULSE_S, SOCKET_TIMEOUT_S
from outhaul.sink.view_gaps import count_gaps

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.operate.status.ask import ClickHouseState, RedisState
    from outhaul.cdc_reader.session.pause import Pause
    from outhaul.cdc_reader.session.reader_state import ReaderState
    from outhaul.cdc_reader.slots.retained_wal import Slot
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.position import Lsn
    from outhaul.sink.redis.payloads import Payloads
    from outhaul.sink.settings import Settings, Stream

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several streams."""

    slot: Slot | None
    reader: ReaderState | None
    reconnecting: str | None
    reader_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """A snapshot; `wrong` has a line for each problem.

    `slot` and `reader` are set if the stream is not divided; otherwise `shards` has them for each shard.
    """

    slot: Slot | None = None
    reader: ReaderState | None = None
    # How long ago the reader reported its state, in seconds.
    reader_age_s: float | None = None
    # The pause that an operator asked for, whether or not a reader runs.
    pause: Pause | None = None
    # Why the reader has no session now, as it reports.
    reconnecting: str | None = None
    # Host and process of the reader that waits to take over, as it reports; of several, the latest to report.
    standby: str | None = None
    queue_length: int | None = None
    rows: int | None = None
    dead_letters: int | None = None
    parts: int | None = None
    bytes_on_disk: int | None = None
    last_stored_at: float | None = None
    # How long each kind of silence can last before outhaul reacts, in seconds.
    noticed_within_s: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    shards: list[Shard] = field(default_factory=list)
    # Events that each materialized view lacks because it refused them.
    view_gaps: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the snapshot in JSON types."""
        return asdict(self)


def gather(settings: Settings, payloads: Payloads, clickhouse: ClickHouse, *, with_growth: bool = False) -> Status:
    """Ask all three servers; an error of a server does not raise. `with_growth` watches the slot for some seconds."""
    if settings.shards > 1:
        return _of_shards(settings, payloads, clickhouse)
    (stream,) = settings.streams()
    errors: list[str] = []
    end = _ask(lambda: end_of_primary(settings), errors)
    postgres = _ask(lambda: _look(stream, end), errors)
    redis = _ask(lambda: ask_redis(payloads, stream), errors)
    stored = _ask(lambda: ask_clickhouse(clickhouse, (stream,)), errors)
    if with_growth and postgres is not None and postgres.slot is not None:
        with suppress(PipelineError):
            postgres = PostgresState(retained_wal.watch(postgres.slot, lambda: _look_again(stream), time.sleep))
    found = _joined(postgres, redis, stored)
    wrong = errors + judge(postgres, redis, stored, stream, time.time())
    return replace(found, noticed_within_s=bounds(settings), wrong=wrong)


def _of_shards(settings: Settings, payloads: Payloads, clickhouse: ClickHouse) -> Status:
    errors: list[str] = []
    wrong: list[str] = []
    shards: list[Shard] = []
    stored = _ask(lambda: ask_clickhouse(clickhouse, settings.streams()), errors)
    found = _joined(None, None, stored)
    end = _ask(lambda: end_of_primary(settings), errors)
    for stream in settings.streams():
        postgres = _ask(partial(_look, stream, end), errors)
        redis = _ask(partial(ask_redis, payloads, stream), errors)
        shard = Shard(
            postgres.slot if postgres else None,
            redis.reader if redis else None,
            redis.reconnecting if redis else None,
            redis.reader_age_s if redis and redis.reader else None,
        )
        # Problems that all shards share are listed once.
        own = redis if redis is None or not shards else replace(redis, is_worked=True, failures=())
        troubles = judge(postgres, own, None if shards else stored, stream, time.time())
        wrong += [f"shard {stream.shard}: {trouble}" for trouble in troubles]
        shards.append(shard)
        if redis:
            found = replace(found, queue_length=redis.queue_length)
    # An unreachable server is listed once, not once for each shard.
    unreachable = list(dict.fromkeys(errors))
    return replace(found, noticed_within_s=bounds(settings), wrong=[*unreachable, *wrong], shards=shards)


def _look(stream: Stream, end: Lsn | None) -> PostgresState:
    with connect_stream(stream.settings) as conn:
        return ask_postgres(conn, stream, end)


def _look_again(stream: Stream) -> Slot | None:
    return _look(stream, end_of_primary(stream.settings)).slot


def _ask(question: Callable[[], _T], errors: list[str]) -> _T | None:
    try:
        return question()
    except PipelineError as error:
        errors.append(str(error))
        return None


def _joined(postgres: PostgresState | None, redis: RedisState | None, stored: ClickHouseState | None) -> Status:
    reader = redis.reader if redis else None
    found = Status(
        slot=postgres.slot if postgres else None,
        reader=reader,
        reader_age_s=round(redis.reader_age_s, 1) if redis and reader else None,
        # ClickHouse has the pause also when no reader runs; without its answer, the reader's state has it.
        pause=stored.pause if stored else (reader.pause if reader else None),
        reconnecting=redis.reconnecting if redis else None,
        standby=redis.standby if redis else None,
        queue_length=redis.queue_length if redis else None,
    )
    if stored is None:
        return found
    return replace(
        found,
        rows=stored.rows,
        dead_letters=stored.dead_letters,
        parts=stored.parts,
        bytes_on_disk=stored.bytes_on_disk,
        last_stored_at=stored.last_stored_at,
        view_gaps=count_gaps(stored.view_gaps),
    )


def bounds(settings: Settings) -> dict[str, float]:
    """Return for each kind of silence how long it can last before it is noticed, in seconds.

    - postgres: no byte arrives, although the reader requested a reply; the reader opens a new session
    - redis: no answer to a command; the reader repeats it, and continues its feedback to Postgres
    - worker: messages wait and no task begins; the watchdog restarts Celery
    - batch: its task does not report that it runs; the reader sends the batch again
    - clickhouse: no answer to an insert; the worker tries the same batch again
    - stored: events wait and nothing is stored; `outhaul status` reports it
    """
    return {
        "postgres": settings.receive_timeout_s,
        "redis": SOCKET_TIMEOUT_S,
        "worker": DEAF_S + PULSE_S,
        "batch": RESEND_S + ALIVE_S,
        "clickhouse": settings.insert_timeout_s,
        "stored": STUCK_S,
    }
