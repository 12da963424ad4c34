"""Settings -> three pollers, each with a connection that it keeps.

Edge: Postgres, Redis, ClickHouse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.cdc_reader.operate.status.ask import (
    ClickHouseState,
    PostgresState,
    RedisState,
    ask_clickhouse,
    ask_postgres,
    ask_redis,
)
from outhaul.cdc_reader.operate.top.polling import ServerPoller
from outhaul.cdc_reader.postgres.connect import connect_stream, end_of_primary
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import PipelineError
from outhaul.sink.redis.payloads import Payloads

if TYPE_CHECKING:
    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.settings import Stream

_TIMEOUT_S = 5
_REST = 9.0


class _Postgres:
    """A connection that is opened again after it broke."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._conn: Connection | None = None

    def ask(self) -> PostgresState:
        try:
            if self._conn is None:
                self._conn = connect_stream(self._stream.settings)
            return ask_postgres(self._conn, self._stream, end_of_primary(self._stream.settings))
        except PipelineError:
            if self._conn is not None:
                self._conn.close()
            self._conn = None
            raise


@dataclass(frozen=True, slots=True)
class Servers:
    """One poller for each server."""

    postgres: ServerPoller[PostgresState]
    redis: ServerPoller[RedisState]
    clickhouse: ServerPoller[ClickHouseState]


def poll_all(stream: Stream, every_s: float) -> Servers:
    """Start to poll all three.

    Raises:
        FatalError: a URL is malformed.
    """
    payloads = Payloads.of(stream.settings)
    clickhouse = ClickHouse.of(stream.settings, timeout_s=_TIMEOUT_S)
    return Servers(
        ServerPoller("Postgres", _Postgres(stream).ask, every_s),
        ServerPoller("Redis", lambda: ask_redis(payloads, stream), every_s),
        # This query counts rows. On a large table it takes longer, so it rests nine times as long: a tenth of a core.
        ServerPoller("ClickHouse", lambda: ask_clickhouse(clickhouse, (stream,)), every_s, rest=_REST),
    )
