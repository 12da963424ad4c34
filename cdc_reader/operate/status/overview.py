"""Three servers and the reader's own word -> one snapshot, and whether something in it is wrong.

Edge: asks; a server that does not answer is part of the answer.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from outhaul.cdc_reader.operate.status.ask import OfPostgres, ask_clickhouse, ask_postgres, ask_redis
from outhaul.cdc_reader.operate.status.problems import STUCK_S, judge
from outhaul.cdc_reader.postgres.connect import connect_stream, end_of_primary
from outhaul.cdc_reader.session.ledger import PATIENCE_S
from outhaul.cdc_reader.slots import retained_wal
from outhaul.sink.errors import PipelineError
from outhaul.sink.redis.payloads import ALIVE_S, DEAF_S, PULSE_S, SOCKET_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.operate.status.ask import OfClickHouse, OfRedis
    from outhaul.cdc_reader.session.pause import Pause
    from outhaul.cdc_reader.session.state import ReaderState
    from outhaul.cdc_reader.slots.retained_wal import Slot
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.position import Lsn
    from outhaul.sink.redis.payloads import Payloads
    from outhaul.sink.settings import Settings

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several streams."""

    slot: Slot | None
    reader: ReaderState | None
    reconnecting: str | None


@dataclass(frozen=True, slots=True)
class Status:
    """A snapshot; `wrong` names, in plain words, all that is not as it should be.

    Slot and reader are those of the one stream; of several, `shards` has each, by its number.
    """

    slot: Slot | None = None
    reader: ReaderState | None = None
    # The pause that an operator asked for, whether or not a reader runs.
    pause: Pause | None = None
    # Why a reader has no session just now, in its own words.
    reconnecting: str | None = None
    # Which reader waits to take over, in its own words; the latest to say so of several.
    standby: str | None = None
    queue_length: int | None = None
    rows: int | None = None
    dead_letters: int | None = None
    parts: int | None = None
    bytes_on_disk: int | None = None
    last_stored_at: float | None = None
    # How long each of these can go on before it is noticed and acted upon, in seconds.
    noticed_within_s: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    shards: list[Shard] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the snapshot in JSON types."""
        return asdict(self)


def gather(settings: Settings, payloads: Payloads, clickhouse: ClickHouse, *, with_growth: bool = False) -> Status:
    """Ask all three servers; none of them can make it fail. For `with_growth` the slot is watched for some seconds."""
    if len(settings.streams()) > 1:
        return _of_shards(settings, payloads, clickhouse)
    silent: list[str] = []
    end = _answer(lambda: end_of_primary(settings), silent)
    postgres = _answer(lambda: _look(settings, end), silent)
    redis = _answer(lambda: ask_redis(payloads, settings), silent)
    stored = _answer(lambda: ask_clickhouse(clickhouse, settings), silent)
    if with_growth and postgres is not None and postgres.slot is not None:
        with suppress(PipelineError):
            postgres = OfPostgres(retained_wal.watch(postgres.slot, lambda: _look_again(settings), time.sleep))
    found = _joined(postgres, redis, stored)
    wrong = silent + judge(postgres, redis, stored, settings, time.time())
    return replace(found, noticed_within_s=bounds(settings), wrong=wrong)


def _of_shards(settings: Settings, payloads: Payloads, clickhouse: ClickHouse) -> Status:
    silent: list[str] = []
    wrong: list[str] = []
    shards: list[Shard] = []
    stored = _answer(lambda: ask_clickhouse(clickhouse, settings), silent)
    found = _joined(None, None, stored)
    end = _answer(lambda: end_of_primary(settings), silent)
    for stream in settings.streams():
        postgres = _answer(partial(_look, stream, end), silent)
        redis = _answer(partial(ask_redis, payloads, stream), silent)
        shard = Shard(
            postgres.slot if postgres else None,
            redis.reader if redis else None,
            redis.reconnecting if redis else None,
        )
        # What all of them have in common is said once.
        own = redis if redis is None or not shards else replace(redis, is_worked=True)
        troubles = judge(postgres, own, None if shards else stored, stream, time.time())
        wrong += [f"shard {stream.shard}: {trouble}" for trouble in troubles]
        shards.append(shard)
        if redis:
            found = replace(found, queue_length=redis.queue_length)
    # A server that is away is so for all of them.
    silences = list(dict.fromkeys(silent))
    return replace(found, noticed_within_s=bounds(settings), wrong=[*silences, *wrong], shards=shards)


def _look(settings: Settings, end: Lsn | None) -> OfPostgres:
    with connect_stream(settings) as conn:
        return ask_postgres(conn, settings, end)


def _look_again(settings: Settings) -> Slot | None:
    return _look(settings, end_of_primary(settings)).slot


def _answer(ask: Callable[[], _T], silent: list[str]) -> _T | None:
    try:
        return ask()
    except PipelineError as error:
        silent.append(str(error))
        return None


def _joined(postgres: OfPostgres | None, redis: OfRedis | None, stored: OfClickHouse | None) -> Status:
    reader = redis.reader if redis else None
    found = Status(
        slot=postgres.slot if postgres else None,
        reader=reader,
        # ClickHouse knows of a pause also where no reader does; without its answer the reader's own word stands.
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
    )


def bounds(settings: Settings) -> dict[str, float]:
    """Return for each kind of silence how long it can last before it is noticed, in seconds.

    - postgres: no byte on the wire, though a reply was asked for; the reader opens a new session
    - redis: no answer to a command; it is repeated, and feedback to Postgres goes on meanwhile
    - worker: messages wait and no task begins; the watchdog starts Celery again
    - batch: its task shows no sign of life; the batch is sent again
    - clickhouse: no answer to an insert; the same batch is tried again
    - stored: events wait and nothing is stored; this page says so
    """
    return {
        "postgres": settings.receive_timeout_s,
        "redis": SOCKET_TIMEOUT_S,
        "worker": DEAF_S + PULSE_S,
        "batch": PATIENCE_S + ALIVE_S,
        "clickhouse": settings.insert_timeout_s,
        "stored": STUCK_S,
    }
