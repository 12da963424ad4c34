"""Settings -> the state of Redis, and its address according to Sentinels or a cluster, and the findings about them.

Edge: INFO, TIME, the commands of `sink/redis/discovery.py`, and a payload of 1 kB that the preflight check writes and
deletes.

Source: https://redis.io/docs/latest/commands/info/
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from outhaul.cdc_reader.operate.doctor.clock_offsets import Offset, measured
from outhaul.cdc_reader.operate.doctor.finding import Finding, broken, fail, fine, warn
from outhaul.cdc_reader.postgres.preflight import check_redis
from outhaul.cdc_reader.session.loop import MAX_IN_FLIGHT_BYTES
from outhaul.sink import redis_url
from outhaul.sink.errors import PipelineError
from outhaul.sink.quantities import size_text
from outhaul.sink.redis import discovery
from outhaul.sink.redis.payloads import Payloads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from outhaul.sink.settings import Settings

_OLDEST = (6, 2)
_TRIPS = 5
# A batch needs about thirty commands, one after the other.
_SLOW_S = 0.01


@dataclass(frozen=True, slots=True)
class Info:
    """Values of INFO, sizes in bytes; `max_memory` is 0 if there is no limit."""

    product: str
    version: str
    compatible: str
    role: str
    cluster: bool
    policy: str
    max_memory: int
    used_memory: int
    persistence: str
    replicas: int = 0


@dataclass(frozen=True, slots=True)
class Discovery:
    """Where `sought` is according to each server of the address, and the server that was found."""

    sought: str
    kind: redis_url.RedisKind
    answers: tuple[discovery.PlaceAnswer, ...]
    found: redis_url.Server | None


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """All answers.

    `refused` is the error of writing a payload, None if it succeeded; `where` is None if the address is one server's.
    """

    info: Info
    refused: PipelineError | None
    trip_s: float
    clock: Offset
    where: Discovery | None = None


def ask(settings: Settings) -> RedisFacts:
    """Ask everything.

    Raises:
        PipelineError: Redis refuses or does not answer.
    """
    with Payloads.of(settings) as payloads:
        info = read(payloads.info())
        refused, trip_s, clock = _put(settings, payloads), _trip_s(payloads), measured(payloads.clock)
        return RedisFacts(info, refused, trip_s, clock, _where(payloads))


def read(info: Mapping[str, str | int | float]) -> Info:
    """Read values from INFO; Valkey has its own version there, and the Redis version that it is compatible with."""
    compatible = str(info.get("redis_version", "0"))
    product = str(info.get("server_name", "redis"))
    kept = [
        name
        for name, is_on in (("append-only file", info.get("aof_enabled")), ("snapshots", info.get("rdb_saves")))
        if is_on
    ]
    return Info(
        product=product,
        version=str(info.get(f"{product}_version", compatible)),
        compatible=compatible,
        role=str(info.get("role", "master")),
        cluster=bool(info.get("cluster_enabled", 0)),
        policy=str(info.get("maxmemory_policy", "noeviction")),
        max_memory=int(info.get("maxmemory", 0)),
        used_memory=int(info.get("used_memory", 0)),
        persistence=" and ".join(kept) or "none reported",
        replicas=int(info.get("connected_slaves", 0)),
    )


def judge(facts: RedisFacts) -> Iterator[Finding]:
    """Judge all answers."""
    info = facts.info
    yield version(info)
    if facts.where is not None:
        yield whereabouts(facts.where)
        yield replicas(info, facts.where)
    elif info.role != "master" or info.cluster:
        yield place(info)
    yield policy(info.policy, info.max_memory)
    yield memory(info)
    if facts.refused is not None:
        yield broken("takes a payload", facts.refused)
    yield fine("persistence", f"{info.persistence}, not needed")
    yield latency(facts.trip_s)


def version(info: Info) -> Finding:
    """Judge the Redis version that the server is compatible with."""
    found = f"{info.product} {info.version}"
    numbers = tuple(int(part) for part in re.findall(r"\d+", info.compatible)[:2])
    if numbers < _OLDEST:
        return fail("version", f"{found} is too old", "Use Redis 6.2 or later, or Valkey")
    return fine("version", found)


def place(info: Info) -> Finding:
    """Return why this server cannot be the one of the address."""
    if info.cluster:
        todo = f"Set OUTHAUL_REDIS_URL={redis_url.CLUSTER_EXAMPLE}"
        return fail("role", "the server is a node of a cluster, but the URL is that of a single server", todo)
    return fail("role", f"the server is a {info.role}, which refuses writes", "Set OUTHAUL_REDIS_URL to the primary")


def whereabouts(where: Discovery) -> Finding:
    """Judge the answers of Sentinels, or of nodes of a cluster, about the server that has the keys."""
    agree = [one.asked for one in where.answers if one.place == where.found]
    others = [one for one in where.answers if one.place != where.found]
    found = f"{where.sought} is {discovery.texts([where.found] if where.found else [])}"
    found += f", according to {len(agree)} of {len(where.answers)}"
    if others:
        why = "; ".join(
            f"{discovery.texts([one.asked])}: {discovery.texts([one.place]) if one.place else one.why}"
            for one in others
        )
        return warn("place", f"{found}; {why}", "Repair those servers, or replace them in OUTHAUL_REDIS_URL")
    if len(where.answers) == 1:
        todo = "List all of them in OUTHAUL_REDIS_URL: without an answer from this one, nothing can connect"
        return warn("place", f"{found}, and it is the only one in OUTHAUL_REDIS_URL", todo)
    return fine("place", found)


def replicas(info: Info, where: Discovery) -> Finding:
    """Judge whether a replica could replace the server that has the keys."""
    if info.replicas:
        return fine("replicas", f"{info.replicas}")
    what = "the node" if where.kind is redis_url.RedisKind.CLUSTER else "the primary"
    return warn("replicas", f"none: if {what} fails, events wait until it runs again", "Start a replica of it")


def policy(name: str, max_memory: int) -> Finding:
    """Judge maxmemory-policy; an evicted batch is sent again, but late, or not while evictions continue."""
    check = "maxmemory-policy"
    todo = "CONFIG SET maxmemory-policy noeviction  -- and in Redis' configuration file"
    if name == "noeviction":
        return fine(check, name)
    victims = "payloads" if name.startswith("volatile") else "messages and payloads"
    if not max_memory:
        return warn(check, f"{name} would evict {victims} if maxmemory were set", todo)
    how = warn if name.startswith("volatile") else fail
    return how(check, f"{name} evicts {victims} that workers still need: batches stall and are sent again", todo)


def memory(info: Info) -> Finding:
    """Judge the memory that is left, compared with what batches in flight can need."""
    if not info.max_memory:
        return fine("memory", f"{size_text(info.used_memory)} used, no limit set")
    left = info.max_memory - info.used_memory
    found = f"{size_text(max(0, left))} of {size_text(info.max_memory)} left, {size_text(MAX_IN_FLIGHT_BYTES)} needed"
    todo = f"CONFIG SET maxmemory {info.used_memory + 4 * MAX_IN_FLIGHT_BYTES}"
    if left < MAX_IN_FLIGHT_BYTES:
        return fail("memory", f"{found}: under load Redis fills up, and batches stall", todo)
    if left < 2 * MAX_IN_FLIGHT_BYTES:
        return warn("memory", f"{found}: a second reader or another program could fill it", todo)
    return fine("memory", found)


def latency(trip_s: float) -> Finding:
    """Judge the time of a round trip, in seconds."""
    found = f"{trip_s * 1000:.1f} ms per round trip"
    if trip_s > _SLOW_S:
        return warn("latency", f"{found}: each batch needs about thirty", "Run reader and workers near Redis")
    return fine("latency", found)


def _where(payloads: Payloads) -> Discovery | None:
    places = payloads.places
    if places is None:
        return None
    search = places.search
    return Discovery(search.target, search.address.kind, tuple(places.ask_all()), places.last)


def _put(settings: Settings, payloads: Payloads) -> PipelineError | None:
    try:
        check_redis(settings, payloads)
    except PipelineError as error:
        return error
    return None


def _trip_s(payloads: Payloads) -> float:
    """Return the median time of a few commands."""
    times = []
    for _ in range(_TRIPS):
        begun = time.perf_counter()
        payloads.clock()
        times.append(time.perf_counter() - begun)
    return median(times)
