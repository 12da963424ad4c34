"""Settings -> what Redis says of itself, and Sentinels or a cluster of where it is; and the findings of that.

Edge: INFO, TIME, what `sink/redis/discovery.py` asks, and the payload of 1 kB that the preflight check puts and drops.

Source: https://redis.io/docs/latest/commands/info/
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from outhaul.cdc_reader.operate.doctor.clock_offsets import Offset, measured
from outhaul.cdc_reader.operate.doctor.finding import Finding, broken, fail, fine, size, warn
from outhaul.cdc_reader.postgres.preflight import check_redis
from outhaul.cdc_reader.session.loop import MAX_IN_FLIGHT_BYTES
from outhaul.sink import redis_url
from outhaul.sink.errors import PipelineError
from outhaul.sink.redis import discovery
from outhaul.sink.redis.payloads import Payloads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from outhaul.sink.settings import Settings

_OLDEST = (6, 2)
_TRIPS = 5
# A batch needs some thirty commands, one after another.
_SLOW_S = 0.01


@dataclass(frozen=True, slots=True)
class Info:
    """What INFO says, sizes in bytes; `max_memory` is 0 where there is no limit."""

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
class Whereabouts:
    """What each server of the address says of where `sought` is, and which of them was found to be it."""

    sought: str
    kind: redis_url.Kind
    said: tuple[discovery.Answer, ...]
    found: redis_url.Server | None


@dataclass(frozen=True, slots=True)
class Answer:
    """All that was answered.

    `refused` is what became of a payload, None where Redis took it; `where` is None where the address names one server.
    """

    info: Info
    refused: PipelineError | None
    trip_s: float
    clock: Offset
    where: Whereabouts | None = None


def ask(settings: Settings) -> Answer:
    """Ask everything.

    Raises:
        PipelineError: Redis refuses or does not answer.
    """
    payloads = Payloads(settings.redis_url.get_secret_value(), settings.source)
    try:
        info = read(payloads.info())
        refused, trip_s, clock = _put(settings, payloads), _trip_s(payloads), measured(payloads.clock)
        return Answer(info, refused, trip_s, clock, _where(payloads))
    finally:
        payloads.close()


def read(info: Mapping[str, str | int | float]) -> Info:
    """Pick from INFO; Valkey tells its own version beside the one it is compatible with."""
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
        persistence=" and ".join(kept) or "none seen",
        replicas=int(info.get("connected_slaves", 0)),
    )


def judge(answer: Answer) -> Iterator[Finding]:
    """Judge all that was answered."""
    info = answer.info
    yield version(info)
    if answer.where is not None:
        yield whereabouts(answer.where)
        yield replicas(info, answer.where)
    elif info.role != "master" or info.cluster:
        yield place(info)
    yield policy(info.policy, info.max_memory)
    yield memory(info)
    if answer.refused is not None:
        yield broken("takes a payload", answer.refused)
    yield fine("persistence", f"{info.persistence}, not needed")
    yield latency(answer.trip_s)


def version(info: Info) -> Finding:
    """Judge the version that the server is compatible with."""
    found = f"{info.product} {info.version}"
    numbers = tuple(int(part) for part in re.findall(r"\d+", info.compatible)[:2])
    if numbers < _OLDEST:
        return fail("version", f"{found} is too old", "Use Redis 6.2 or later, or Valkey")
    return fine("version", found)


def place(info: Info) -> Finding:
    """Say why this server cannot be the one that the address names."""
    if info.cluster:
        return fail("role", "a cluster's node, and the address does not say so", f"Write {redis_url.CLUSTER_EXAMPLE}")
    return fail("role", f"a {info.role}: it takes no messages", "Point OUTHAUL_REDIS_URL at the primary")


def whereabouts(where: Whereabouts) -> Finding:
    """Judge what Sentinels, or nodes of a cluster, say of where the keys are."""
    agree = [one.asked for one in where.said if one.place == where.found]
    others = [one for one in where.said if one.place != where.found]
    found = f"{where.sought} is {discovery.texts([where.found] if where.found else [])}"
    found += f", as {len(agree)} of {len(where.said)} say"
    if others:
        why = "; ".join(
            f"{discovery.texts([one.asked])}: {discovery.texts([one.place]) if one.place else one.why}"
            for one in others
        )
        return warn(
            "place", f"{found}; {why}", "Mend those that do not answer or know less, or name others in their place"
        )
    if len(where.said) == 1:
        todo = "Name all of them in OUTHAUL_REDIS_URL: this one is asked before each connection"
        return warn("place", f"{found}, and it is the only one named", todo)
    return fine("place", found)


def replicas(info: Info, where: Whereabouts) -> Finding:
    """Judge whether anything could take the place of the server that holds the keys."""
    if info.replicas:
        return fine("replicas", f"{info.replicas}")
    what = "the node" if where.kind is redis_url.Kind.CLUSTER else "the primary"
    return warn("replicas", f"none: when {what} dies, events wait until it is back", "Start a replica of it")


def policy(name: str, max_memory: int) -> Finding:
    """Judge maxmemory-policy; what it would evict is sent again, late, or not at all while it goes on."""
    check = "maxmemory-policy"
    todo = "CONFIG SET maxmemory-policy noeviction  -- and the same in its configuration"
    if name == "noeviction":
        return fine(check, name)
    victims = "payloads" if name.startswith("volatile") else "messages and payloads"
    if not max_memory:
        return warn(check, f"{name} would throw away {victims}, were a maxmemory set", todo)
    how = warn if name.startswith("volatile") else fail
    return how(check, f"{name} throws away {victims} that are on their way: batches stall and are sent again", todo)


def memory(info: Info) -> Finding:
    """Judge the memory that is left, beside what batches in flight may take."""
    if not info.max_memory:
        return fine("memory", f"{size(info.used_memory)} used, no limit set")
    left = info.max_memory - info.used_memory
    found = f"{size(max(0, left))} of {size(info.max_memory)} left, {size(MAX_IN_FLIGHT_BYTES)} needed"
    todo = f"CONFIG SET maxmemory {info.used_memory + 4 * MAX_IN_FLIGHT_BYTES}"
    if left < MAX_IN_FLIGHT_BYTES:
        return fail("memory", f"{found}: under load Redis fills up, and batches stall", todo)
    if left < 2 * MAX_IN_FLIGHT_BYTES:
        return warn("memory", f"{found}: a second reader, or others, would fill it", todo)
    return fine("memory", found)


def latency(trip_s: float) -> Finding:
    """Judge the time of a round trip, in seconds."""
    found = f"{trip_s * 1000:.1f} ms a round trip"
    if trip_s > _SLOW_S:
        return warn("latency", f"{found}: each batch needs some thirty", "Run reader and workers near Redis")
    return fine("latency", found)


def _where(payloads: Payloads) -> Whereabouts | None:
    places = payloads.places
    if places is None:
        return None
    search = places.search
    return Whereabouts(search.sought, search.address.kind, tuple(places.survey()), places.last)


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
