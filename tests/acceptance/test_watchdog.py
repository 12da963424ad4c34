"""`outhaul worker` heals by itself: a Celery worker that dies or goes deaf is started again."""

import os
import signal
from pathlib import Path

import pytest

from outhaul.sink.redis.payloads import DEAF_S
from tests.conftest import World, until


def children(world: World) -> list[int]:
    """Return the children of the watchdog, zombies included."""
    pid = world.pipeline.pid("worker")
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def celery_of(world: World) -> int:
    (celery,) = children(world)
    return celery


def test_a_worker_that_dies_is_started_again(running_pool: World) -> None:
    running_pool.insert(3)
    running_pool.assert_once_each()
    os.killpg(celery_of(running_pool), signal.SIGKILL)
    running_pool.insert(3)
    running_pool.assert_once_each()
    assert "worker_restarting" in running_pool.pipeline.log("worker")


@pytest.mark.thorough
@pytest.mark.slow
def test_a_worker_that_stops_consuming_is_noticed_and_started_again(running_pool: World) -> None:
    running_pool.insert(3)
    running_pool.assert_once_each()
    # Frozen, it is as deaf as can be: its connection stands, and nothing is taken from the queue.
    os.killpg(celery_of(running_pool), signal.SIGSTOP)
    running_pool.insert(3)
    until(lambda: "deaf" in running_pool.pipeline.log("worker"), within_s=DEAF_S + 20, what="the watchdog notices")
    running_pool.assert_once_each()


@pytest.mark.thorough
def test_sigterm_ends_the_watchdog_and_all_of_its_children(running_pool: World) -> None:
    celery = celery_of(running_pool)
    running_pool.pipeline.stop("worker")
    assert not Path(f"/proc/{celery}").exists()
