"""Settings -> three askers, each with a connection that it keeps.

Edge: Postgres, Redis, ClickHouse.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from outhaul.cdc_reader.operate.status.ask import (
    ClickHouseState,
    PostgresState,
    RedisState,
    ask_clickhouse,
    ask_postgres,
    ask_redis,
)
from outhaul.cdc_reader.operate.top.poll import Asker
from outhaul.cdc_reader.postgres.connect import connect_stream, end_of_primary
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import PipelineError
from outhaul.sink.redis.payloads import Payloads

if TYPE_CHECKING:
    from outhaul.sink.settings import Settings

_TIMEOUT_S = 5
_REST = 9.0


class _Postgres:
    """A connection that is opened again after it broke."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._conn: psycopg.Connection[dict[str, Any]] | None = None

    def ask(self) -> PostgresState:
        try:
            if self._conn is None:
                self._conn = connect_stream(self._settings)
            return ask_postgres(self._conn, self._settings, end_of_primary(self._settings))
        except PipelineError:
            conn, self._conn = self._conn, None
            if conn is not None:
                with suppress(psycopg.Error):
                    conn.close()
            raise


@dataclass(frozen=True, slots=True)
class Servers:
    """One that asks each of them."""

    postgres: Asker[PostgresState]
    redis: Asker[RedisState]
    clickhouse: Asker[ClickHouseState]


def ask_all(settings: Settings, every_s: float) -> Servers:
    """Begin to ask all three.

    Raises:
        FatalError: a URL is malformed.
    """
    payloads = Payloads(settings.redis_url.get_secret_value(), settings.source)
    clickhouse = ClickHouse(settings.clickhouse_url.get_secret_value(), timeout_s=_TIMEOUT_S)
    return Servers(
        Asker("Postgres", _Postgres(settings).ask, every_s),
        Asker("Redis", lambda: ask_redis(payloads, settings), every_s),
        # It counts rows: with very many of them, whoever watches is not to cost more than a tenth of a core.
        Asker("ClickHouse", lambda: ask_clickhouse(clickhouse, settings), every_s, rest=_REST),
    )
