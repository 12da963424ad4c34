"""The doctor before a real Redis and Celery: full, evicting, with nobody who takes messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis as redis_client

from outhaul.cdc_reader.operate.doctor.finding import State
from outhaul.deploy.demo.pipeline import Pipeline
from tests.conftest import World, until
from tests.integration.doctor_findings import (
    of_celery,
    of_redis,
    troubles,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def valkey(world: World) -> Iterator[redis_client.Redis]:
    """The shared Redis, put back as it was."""
    with redis_client.Redis.from_url(world.env["OUTHAUL_REDIS_URL"]) as client:
        names = ("maxmemory-policy", "maxmemory")
        before = {name: client.config_get(name)[name] for name in names}
        yield client
        for name, value in before.items():
            client.config_set(name, value)


def test_a_redis_that_evicts_or_is_nearly_full_is_mended_by_the_command_it_names(
    world: World, valkey: redis_client.Redis
) -> None:
    used = int(valkey.info("memory")["used_memory"])
    valkey.config_set("maxmemory-policy", "allkeys-lru")
    valkey.config_set("maxmemory", used + (50 << 20))
    found = of_redis(world.settings)
    assert troubles(found) == {"maxmemory-policy": State.FAIL, "memory": State.FAIL}
    for check in ("maxmemory-policy", "memory"):
        _, _, name, value = found[check].fix.split("  --")[0].split()
        valkey.config_set(name, value)
    assert troubles(of_redis(world.settings)) == {}


def test_a_redis_that_accepts_no_writes_is_reported(world: World, valkey: redis_client.Redis) -> None:
    valkey.config_set("maxmemory", 1)
    found = of_redis(world.settings)
    assert troubles(found) == {"memory": State.FAIL, "takes a payload": State.FAIL}
    assert found["takes a payload"].found == "Redis is full (maxmemory reached)"


@pytest.mark.thorough
def test_messages_that_nobody_takes_fail(world: World) -> None:
    with redis_client.Redis.from_url(world.env["OUTHAUL_REDIS_URL"]) as client:
        client.rpush(world.settings.queue_key, *["{}"] * 9)
        assert {check: one.state for check, one in of_celery(world).items()} == {
            "workers": State.FAIL,
            "queue": State.WARN,
            "unexpected errors": State.PASS,
        }
        client.delete(world.settings.queue_key)
    assert troubles(of_celery(world)) == {"workers": State.WARN}


@pytest.mark.thorough
def test_a_worker_with_other_limits_is_named_and_one_of_another_pipeline_is_not(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    # Celery's pool is what has the limits.
    world = make_world(pool=True)
    logs = tmp_path / "other"
    logs.mkdir()
    other = Pipeline(world.env | {"OUTHAUL_SOURCE": "another"}, logs)
    try:
        other.start("worker")
        world.pipeline.start("worker", OUTHAUL_TASK_TIME_LIMIT_S="90")
        until(lambda: "workers" not in troubles(of_celery(world)), what="the worker answers", within_s=60)
        found = of_celery(world)
        assert found["workers"].found.startswith("1: ")
        assert troubles(found) == {"limits": State.WARN}
        assert "task 75 s and 90 s" in found["limits"].found
    finally:
        other.kill()
