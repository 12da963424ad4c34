"""Workers on two machines share the batches, and what one takes with it when its link dies comes by the other."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from outhaul.deploy.local.fault_proxy import Proxy
from tests.acceptance.commands import asked
from tests.acceptance.load import trickle, wait_for_more
from tests.conftest import until
from tests.second_host import Host, host

if TYPE_CHECKING:
    from tests.conftest import World

HOSTS = ("rack-a", "rack-b")


def stored_by(world: World, one: Host) -> int:
    """Return how many batches a host's worker says that it stored."""
    return world.pipeline.log(f"worker-{one.name}").count('"event": "batch_done"')


def start_worker(world: World, one: Host, stack: ExitStack) -> None:
    """Start a worker on a host, which has no way to the servers but by its link."""
    env = {}
    for name in ("OUTHAUL_REDIS_URL", "OUTHAUL_CLICKHOUSE_URL"):
        parts = urlsplit(world.env[name])
        door = Proxy(parts.port or 0, host=one.gateway)
        stack.callback(door.close)
        login, at, _ = parts.netloc.rpartition("@")
        env[name] = parts._replace(netloc=f"{login}{at}{one.gateway}:{door.port}").geturl()
    env["OUTHAUL_POSTGRES_DSN"] = ""
    world.pipeline.start(f"worker-{one.name}", via=one.via, **env)


@pytest.mark.long
def test_workers_of_two_machines_share_the_batches_and_one_goes_on_without_the_other(world: World) -> None:
    with ExitStack() as stack:
        first, second = hosts = [stack.enter_context(host(name, number)) for number, name in enumerate(HOSTS, 1)]
        stack.callback(world.pipeline.kill)
        for one in hosts:
            start_worker(world, one, stack)
        world.pipeline.start("reader")
        with trickle(world):
            until(lambda: all(stored_by(world, one) > 10 for one in hosts), what="both hosts work")
            for one in hosts:
                assert f"@{one.name} ready" in world.pipeline.log(f"worker-{one.name}")
            first.unplug()
            had = stored_by(world, second)
            until(lambda: stored_by(world, second) > had + 20, what="the other one works alone")
            wait_for_more(world)
            first.plug_in()
            had = stored_by(world, first)
            until(lambda: stored_by(world, first) > had + 10, within_s=90, what="the first one is back")
        world.assert_once_each()
        found = asked(world, "verify", "--deep")
    assert (found["missing"], found["extra"], found["differing"], found["repeated"]) == (0, 0, 0, 0)
