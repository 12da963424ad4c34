"""Payloads by key, reports by list, the epoch's mirror -> Redis or Valkey, and back.

Edge: Redis, beside the broker's own connections. Redis is lossy by assumption: whatever is put here can be gone when
it is looked for, and the reader then sends it again.

Source: https://redis.io/docs/latest/commands/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from outhaul.sink import redis_url
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.redis import topology
from outhaul.sink.redis.connection import connection_options
from outhaul.sink.redis.driver_errors import of_a_cluster, translated

if TYPE_CHECKING:
    from collections.abc import Sequence

# Long enough for a Redis that forks or swaps, short enough that a thread that waits here can be stopped.
SOCKET_TIMEOUT_S = 5

# Leftovers of readers that died go by themselves; a live reader sends a payload that has expired again.
_PAYLOAD_TTL_S = 24 * 3600
_REPORTS_AT_ONCE = 100
_MAX_TEXT_BYTES = 64 << 10

# The code of Redis' error for a key that holds another kind of value than the command is for.
_WRONG_TYPE = "WRONGTYPE"

# A task that has not renewed its sign of life for so many seconds is given up, and its batch sent again.
ALIVE_S = 5
# How long a worker counts as busy after its last task began or went on, in seconds.
PULSE_S = 10
# How long messages wait while no worker is busy until one counts as deaf, in seconds; it needs a few to start.
DEAF_S = 20.0


class Payloads:
    """One connection pool; usable from several threads."""

    def __init__(self, url: str, source: str) -> None:
        """Keep the address; nothing is opened yet.

        Args:
            url: OUTHAUL_REDIS_URL.
            source: whose keys are meant, by which their node is found in a cluster.

        Raises:
            FatalError: the URL is not one, or its TLS options do not hold.
        """
        redis_url.check(url)
        self.places = topology.places(url, source)
        # Repeating is the callers' decision: they know which batch, and they log it.
        options: dict[str, Any] = {
            "socket_timeout": SOCKET_TIMEOUT_S,
            "socket_connect_timeout": SOCKET_TIMEOUT_S,
            "retry": Retry(NoBackoff(), 0),
        }
        if self.places is not None:
            pool = redis.ConnectionPool(**connection_options(self.places), **options)
            self._redis = redis.Redis.from_pool(pool)
            return
        try:
            self._redis = redis.Redis.from_url(url, **redis_url.client_options(url), **options)
        except ValueError as error:
            raise FatalError(f"OUTHAUL_REDIS_URL is no Redis URL: {error}", exit_code=Exit.SETTINGS) from None

    def put(self, key: str, payload: bytes) -> None:
        """Store a payload.

        Raises:
            TransientError: Redis did not take it.
        """
        with translated():
            self._redis.set(key, payload, ex=_PAYLOAD_TTL_S)

    def get(self, key: str, *, max_bytes: int) -> bytes | None:
        """Return a payload, or None when it is not there; of a longer one, no more than shows that it is longer.

        Raises:
            TransientError: Redis did not answer.
        """
        with translated():
            try:
                answer: object = self._redis.getrange(key, 0, max_bytes)
            except redis.ResponseError as error:
                answer = error
            return _value(answer)

    def get_with_text(self, text_key: str, key: str, *, max_bytes: int) -> tuple[str | None, bytes | None]:
        """Return a short text and a payload, as `text` and `get` would, in one trip.

        Raises:
            TransientError: Redis did not answer.
        """
        with translated(), self._redis.pipeline(transaction=False) as pipe:
            pipe.getrange(text_key, 0, _MAX_TEXT_BYTES)
            pipe.getrange(key, 0, max_bytes)
            answers = [_value(answer) for answer in pipe.execute(raise_on_error=False)]
        text = answers[0]
        return (None if text is None else text.decode(errors="replace")), answers[1]

    def drop(self, keys: Sequence[str]) -> None:
        """Delete payloads that nobody will ask for any more.

        Raises:
            TransientError: Redis did not answer.
        """
        with translated():
            if keys:
                self._redis.delete(*keys)

    def report(self, list_key: str, line: str, *, drop: Sequence[str] = (), alive: str | None = None) -> None:
        """Delete the keys that a report settles, then append it and set the sign of life `alive` in one step.

        Raises:
            TransientError: Redis did not take it.
        """
        # First, and not in the same step: a Redis that is full of payloads takes nothing more before one is gone.
        self.drop(drop)
        with translated(), self._redis.pipeline(transaction=True) as pipe:
            pipe.rpush(list_key, line)
            pipe.expire(list_key, _PAYLOAD_TTL_S)
            if alive is not None:
                pipe.set(alive, 1, ex=ALIVE_S)
            pipe.execute()

    def renew(self, alive: str) -> None:
        """Renew a sign of life.

        Raises:
            TransientError: Redis did not take it.
        """
        self.set(alive, "1", ttl_s=ALIVE_S)

    def present(self, keys: Sequence[str]) -> list[bool]:
        """Tell for each key whether it is there.

        Raises:
            TransientError: Redis did not answer.
        """
        with translated():
            return [value is not None for value in cast("list[bytes | None]", self._redis.mget(keys))] if keys else []

    def reports(self, list_key: str, *, wait_s: int) -> list[bytes]:
        """Wait for reports; return what there is, nothing when `wait_s` whole seconds have passed.

        Raises:
            TransientError: Redis did not answer.
        """
        with translated():
            try:
                first = cast("tuple[bytes, bytes] | None", self._redis.blpop([list_key], timeout=wait_s))
            except redis.ResponseError as error:
                if not str(error).startswith(_WRONG_TYPE):
                    raise
                # Nothing of ours is in it, and as long as it is there, no report can be.
                self._redis.delete(list_key)
                return []
            if first is None:
                return []
            more = cast("list[bytes] | None", self._redis.lpop(list_key, _REPORTS_AT_ONCE))
            return [first[1], *(more or [])]

    def set(self, key: str, text: str, *, ttl_s: int | None = None) -> None:
        """Store a short text.

        Raises:
            TransientError: Redis did not take it.
        """
        with translated():
            self._redis.set(key, text, ex=ttl_s)

    def text(self, key: str) -> str | None:
        """Return a short text, or None.

        Raises:
            TransientError: Redis did not answer.
        """
        value = self.get(key, max_bytes=_MAX_TEXT_BYTES)
        return None if value is None else value.decode(errors="replace")

    def length(self, key: str) -> int:
        """Return the length of a list, 0 when it is not there.

        Raises:
            TransientError: Redis did not answer.
        """
        with translated():
            return self._redis.llen(key)

    def info(self) -> dict[str, str | int | float]:
        """Return what the server says of itself.

        Raises:
            PipelineError: Redis did not answer.
        """
        with translated():
            return cast("dict[str, str | int | float]", self._redis.info())

    def check_alone(self) -> None:
        """Make sure that a server that is to be the only one is no node of a cluster, as far as it tells.

        Raises:
            FatalError: it is one.
            TransientError: Redis did not answer.
        """
        if self.places is not None:
            return
        with translated():
            try:
                info = cast("dict[str, object]", self._redis.info("cluster"))
            except redis.exceptions.NoPermissionError:
                return
        if info.get("cluster_enabled"):
            raise of_a_cluster("it says so itself")

    def clock(self) -> float:
        """Return the server's time, in Unix seconds.

        Raises:
            PipelineError: Redis did not answer.
        """
        with translated():
            seconds, microseconds = self._redis.time()
            return seconds + microseconds / 1e6

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()


def _value(answer: object) -> bytes | None:
    """Return what a key holds; nothing where it is empty, or holds what none of ours does."""
    if isinstance(answer, Exception) and not str(answer).startswith(_WRONG_TYPE):
        raise answer
    return answer or None if isinstance(answer, bytes) else None
