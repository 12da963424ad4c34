"""A batch that nobody reports on is sent again in time, whatever else waits in the queue that it has left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import redis

from tests.conftest import World, until

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_lost_message_is_sent_again_though_others_wait_in_the_queue(make_world: Callable[..., World]) -> None:
    world = make_world(redispatch_s=3, retry_max_s=1)
    world.pipeline.start("reader")
    world.insert(3)
    queue = world.settings.queue_key
    with redis.Redis.from_url(world.env["OUTHAUL_REDIS_URL"]) as client:
        until(lambda: client.llen(queue) == 1, what="the batch is sent")
        # As if a worker took this one and died, while messages of another shard wait for the next worker.
        client.lpop(queue)
        client.lpush(queue, "of another shard")
        until(lambda: client.llen(queue) >= 2, what="the batch is sent again")
    assert "sending_again" in world.pipeline.log("reader")
    world.pipeline.start("worker")
    world.assert_once_each()
