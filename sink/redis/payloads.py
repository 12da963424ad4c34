"""Payloads by key, report lines by list, short texts by key -> Redis or Valkey, and back.

Edge: Redis; the broker has connections of its own. Redis may lose data at any time. Any value that is stored here can
be missing later; the reader then sends its batch again.

Source: https://redis.io/docs/latest/commands/
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from outhaul.sink import redis_url
from outhaul.sink.errors import Exit, FatalError, TransientError
from outhaul.sink.redis import topology
from outhaul.sink.redis.connection import pool_options
from outhaul.sink.redis.driver_errors import cluster_node_error, missing_commands, translated
from outhaul.sink.redis_url import RedisKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from outhaul.sink.settings import Settings

# Long enough for a Redis that forks or swaps; short enough to stop a thread that waits for an answer.
SOCKET_TIMEOUT_S = 5

# How long Redis may take to refuse a value, in seconds and in round trips, when its length is announced.
_REFUSAL_S, _REFUSAL_TRIPS = 0.02, 4
# The same after a connection broke while a value was sent: the network may be slow.
_REFUSAL_LATE_S = 2.0
# Smaller values are always accepted: proto-max-bulk-len is 1 MiB at least.
_ALWAYS_TAKEN_BYTES = 1 << 20

# Payloads of readers that died expire. If a payload expires too early, its reader sends it again.
_PAYLOAD_TTL_S = 24 * 3600
_REPORTS_AT_ONCE = 100
_MAX_TEXT_BYTES = 64 << 10

# What outhaul, Celery and kombu send, as MONITOR shows it.
COMMANDS = (
    "BLPOP", "BRPOP", "DEL", "EVALSHA", "EXEC", "EXPIRE", "GET", "GETRANGE", "HDEL", "HSET", "HVALS", "LLEN", "LPOP",
    "LPUSH", "MGET", "MULTI", "PSUBSCRIBE", "PUBLISH", "PUNSUBSCRIBE", "RPUSH", "SADD", "SCRIPT", "SET", "SMEMBERS",
    "SREM", "SUBSCRIBE", "TIME", "ZADD", "ZRANGE", "ZRANGEBYSCORE", "ZREM", "ZREVRANGEBYSCORE",
)  # fmt: skip

# Code of Redis's error for a command on a key whose value is of another type.
_WRONG_TYPE = "WRONGTYPE"

# A liveness key expires after this time, in seconds. The reader then gives the task up, and sends its batch again.
ALIVE_S = 5
# How long a worker counts as busy after it last renewed its pulse key, in seconds; it renews the key during a task.
PULSE_S = 10
# A worker counts as deaf if messages wait and it is not busy for this time, in seconds; a start takes a few of them.
DEAF_S = 20.0


class Payloads:
    """One connection pool; usable from several threads."""

    def __init__(self, url: str, source: str) -> None:
        """Keep the address; open no connection yet.

        Args:
            url: OUTHAUL_REDIS_URL.
            source: owner of the keys; in a cluster, it determines their node.

        Raises:
            FatalError: the URL or one of its TLS options is invalid.
        """
        redis_url.check(url)
        self.places = topology.places(url, source)
        timeouts = {"socket_timeout": SOCKET_TIMEOUT_S, "socket_connect_timeout": SOCKET_TIMEOUT_S}
        # The client retries nothing. Its callers decide about retries: they know the batch, and log each retry.
        options = timeouts | pool_options(url, source) | {"retry": Retry(NoBackoff(), 0)}
        self._redis = redis.Redis.from_pool(redis.ConnectionPool(**options))

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return a pool for the Redis of the settings; nothing is opened yet.

        Raises:
            FatalError: as of the constructor.
        """
        return cls(settings.redis_url.get_secret_value(), settings.source)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put(self, key: str, payload: bytes) -> None:
        """Store a payload.

        Raises:
            TransientError: Redis did not store it.
            FatalError: Redis takes no value of this size.
        """
        try:
            with translated():
                self._redis.set(key, payload, ex=_PAYLOAD_TTL_S)
        except TransientError as error:
            if error.exit_code is Exit.REDIS_UNREACHABLE:
                # A server that refuses a length closes the connection, often before its answer can be read.
                with suppress(TransientError):
                    self.check_takes(len(payload), within_s=_REFUSAL_LATE_S)
            raise

    def check_takes(self, size: int, *, within_s: float = _REFUSAL_S) -> None:
        """Announce a value of this size to Redis, without sending it; a server that takes none answers at once.

        Args:
            size: bytes.
            within_s: how long to wait for the refusal; at least some round trips.

        Raises:
            TransientError: Redis did not answer.
            FatalError: it refuses a value of this size.
        """
        if size <= _ALWAYS_TAKEN_BYTES:
            return
        connection: Any = self._redis.connection_pool.make_connection()
        with translated(), _disconnected(connection):
            connection.connect()
            begun_at = time.monotonic()
            connection.send_command("PING", check_health=False)
            connection.read_response()
            trip_s = time.monotonic() - begun_at
            connection.send_packed_command([b"*2\r\n$4\r\nECHO\r\n$%d\r\n" % size], check_health=False)
            if not connection.can_read(timeout=max(within_s, _REFUSAL_TRIPS * trip_s)):
                return
            try:
                connection.read_response()
            except (redis.ResponseError, redis.ConnectionError) as error:
                raise FatalError(
                    f"Redis takes no value of {size:,} bytes ({error})",
                    todo="CONFIG SET proto-max-bulk-len 512mb, and in Redis' configuration file",
                    exit_code=Exit.REDIS_REFUSED,
                ) from error

    def check_commands(self) -> None:
        """Check that the server has all commands that outhaul and Celery use: `rename-command` may have removed some.

        Raises:
            TransientError: Redis did not answer.
            FatalError: it lacks some of them.
        """
        with translated():
            try:
                found = cast("Sequence[object]", self._redis.execute_command("COMMAND INFO", *COMMANDS))  # type: ignore[no-untyped-call]
            except redis.ResponseError:
                # Without COMMAND, or without the right to it, each command is tried when it is needed.
                return
        if missing := [name for name, facts in zip(COMMANDS, found, strict=True) if not facts]:
            raise missing_commands(missing)

    def take_over(self, old: str, new: str) -> None:
        """Move the items of a list to another one, oldest first; leave them if this user may not use the old one.

        Raises:
            TransientError: Redis did not answer.
        """
        if self.places is not None and self.places.search.address.kind is RedisKind.CLUSTER:
            return
        with translated():
            try:
                while self._redis.lmove(old, new, "RIGHT", "LEFT") is not None:
                    pass
            except redis.ResponseError:
                return

    def get(self, key: str, *, max_bytes: int) -> bytes | None:
        """Return a payload, or None if it is missing.

        Of a payload longer than `max_bytes`, only `max_bytes` + 1 bytes are returned: enough to see that it is longer.

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
        """Return a short text and a payload, like `text` and `get`, in one round trip.

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
        """Delete keys that no process needs any more.

        Raises:
            TransientError: Redis did not answer.
        """
        with translated():
            if keys:
                self._redis.delete(*keys)

    def report(self, list_key: str, line: str, *, drop: Sequence[str] = (), alive: str | None = None) -> None:
        """Delete the keys in `drop`; then append the line and set the liveness key `alive`, atomically.

        Raises:
            TransientError: Redis did not store it.
        """
        # A separate first step: a Redis that is full of payloads accepts no line before a payload is deleted.
        self.drop(drop)
        with translated(), self._redis.pipeline(transaction=True) as pipe:
            pipe.rpush(list_key, line)
            pipe.expire(list_key, _PAYLOAD_TTL_S)
            if alive is not None:
                pipe.set(alive, 1, ex=ALIVE_S)
            pipe.execute()

    def renew(self, alive: str) -> None:
        """Renew a liveness key.

        Raises:
            TransientError: Redis did not store it.
        """
        self.set(alive, "1", ttl_s=ALIVE_S)

    def present(self, keys: Sequence[str]) -> list[bool]:
        """Tell for each key whether it exists.

        Raises:
            TransientError: Redis did not answer.
        """
        with translated():
            return [value is not None for value in cast("list[bytes | None]", self._redis.mget(keys))] if keys else []

    def reports(self, list_key: str, *, wait_s: int) -> list[bytes]:
        """Wait at most `wait_s` whole seconds for reports; return those that have arrived.

        Raises:
            TransientError: Redis did not answer.
        """
        with translated():
            try:
                first = cast("tuple[bytes, bytes] | None", self._redis.blpop([list_key], timeout=wait_s))
            except redis.ResponseError as error:
                if not str(error).startswith(_WRONG_TYPE):
                    raise
                # Another program made this key. It contains no report, and while it exists, no report can be added.
                self._redis.delete(list_key)
                return []
            if first is None:
                return []
            more = cast("list[bytes] | None", self._redis.lpop(list_key, _REPORTS_AT_ONCE))
            return [first[1], *(more or [])]

    def set(self, key: str, text: str, *, ttl_s: int | None = None) -> None:
        """Store a short text.

        Raises:
            TransientError: Redis did not store it.
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

    def text_and_age(self, key: str, ttl_s: float) -> tuple[str | None, float]:
        """Return a short text that was stored with this lifetime, or None; and its age, by the server's clock.

        Raises:
            TransientError: Redis did not answer.
        """
        with translated(), self._redis.pipeline(transaction=False) as pipe:
            pipe.getrange(key, 0, _MAX_TEXT_BYTES)
            pipe.pttl(key)
            value, left_ms = pipe.execute(raise_on_error=False)
        text = _value(value)
        if text is None or not isinstance(left_ms, int) or left_ms < 0:
            return None, 0.0
        return text.decode(errors="replace"), max(0.0, ttl_s - left_ms / 1000)

    def note(self, key: str, field: str, text: str, *, ttl_s: int, max_fields: int) -> None:
        """Store a short text in a field of a hash; the hash expires after `ttl_s`, and has at most `max_fields` fields.

        Raises:
            TransientError: Redis did not store it.
        """
        with translated():
            if self._redis.hlen(key) >= max_fields:
                self._redis.delete(key)
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(key, field, text)
                pipe.expire(key, ttl_s)
                pipe.execute()

    def notes(self, key: str) -> list[bytes]:
        """Return the texts of all fields of a hash.

        Raises:
            TransientError: Redis did not answer.
        """
        with translated():
            try:
                return cast("list[bytes]", self._redis.hvals(key))
            except redis.ResponseError as error:
                if not str(error).startswith(_WRONG_TYPE):
                    raise
                return []

    def length(self, key: str) -> int:
        """Return the length of a list, 0 if it does not exist.

        Raises:
            TransientError: Redis did not answer.
        """
        with translated():
            return self._redis.llen(key)

    def info(self) -> dict[str, str | int | float]:
        """Return the server's answer to INFO.

        Raises:
            PipelineError: Redis did not answer.
        """
        with translated():
            return cast("dict[str, str | int | float]", self._redis.info())

    def check_alone(self) -> None:
        """If the URL names one server, check that it is not a node of a cluster; skip this if INFO does not work.

        Raises:
            FatalError: the server is a node of a cluster.
            TransientError: Redis did not answer.
        """
        if self.places is not None:
            return
        with translated():
            try:
                info = cast("dict[str, object]", self._redis.info("cluster"))
            except redis.ResponseError:
                return
        if info.get("cluster_enabled"):
            raise cluster_node_error("INFO reports cluster_enabled")

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


@contextmanager
def _disconnected(connection: Any) -> Iterator[None]:
    """Disconnect at the end of the block."""
    try:
        yield
    finally:
        connection.disconnect()


def _value(answer: object) -> bytes | None:
    """Return the value of a key; None if it is empty, or of a type that outhaul does not store."""
    if isinstance(answer, Exception) and not str(answer).startswith(_WRONG_TYPE):
        raise answer
    return answer or None if isinstance(answer, bytes) else None
