"""A Redis of a kind that is not spoken to is refused at the start, with what to do; each is a real one here."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import redis

from deploy.local.valkey import Valkey
from sink.errors import Exit, FatalError
from sink.payloads import Payloads
from tests.acceptance.operator import outhaul
from tests.acceptance.pages import free_port
from tests.conftest import World, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE_ADDRESS = "Give it one address that leads to the primary"


@contextmanager
def server(folder: Path, *arguments: str) -> Iterator[str]:
    """Run Valkey with a configuration of its own; yield its URL."""
    port = free_port()
    program = Valkey(folder).prepare(port).argv[0]
    conf = folder / f"{port}.conf"
    conf.write_text(f'port {port}\nbind 127.0.0.1\ndir {folder}\nsave ""\n')
    process = subprocess.Popen([program, str(conf), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:

        def answers() -> bool:
            with suppress(redis.ConnectionError), redis.Redis(port=port) as client:
                return bool(client.ping())
            return False

        until(answers, what="Valkey answers")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://127.0.0.1:26379/0",
        "redis+sentinel://:pass@one:26379,two:26379/0?master_name=mymaster",
        "rediss+sentinel://one:26379/mymaster/0",
        "redis+cluster://one:6379",
        "redis://:with,comma@one:6379,two:6379/0",
    ],
)
def test_an_address_that_names_several_servers_is_refused(url: str) -> None:
    with pytest.raises(FatalError, match="a Sentinel, a cluster or several servers") as refused:
        Payloads(url)
    assert refused.value.exit_code is Exit.SETTINGS
    assert ONE_ADDRESS in refused.value.todo


def test_a_password_may_have_a_comma() -> None:
    Payloads("redis://:with,comma@one:6379/0").close()


@pytest.mark.long
def test_a_sentinel_s_own_address_is_refused_at_the_start(world: World, tmp_path: Path) -> None:
    with server(tmp_path, "--sentinel") as url:
        said = outhaul(world, "reader", code=Exit.SETTINGS, OUTHAUL_REDIS_URL=url)
    assert "leads to a server that keeps no keys, a Sentinel perhaps" in said
    assert ONE_ADDRESS in said


@pytest.mark.long
def test_a_node_of_a_cluster_is_refused_at_the_start(world: World, tmp_path: Path) -> None:
    with server(tmp_path, "--cluster-enabled", "yes") as url:
        with redis.Redis.from_url(url) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            until(lambda: "'cluster_state': 'ok'" in str(client.execute_command("CLUSTER INFO")), what="it is up")
        said = outhaul(world, "reader", code=Exit.SETTINGS, OUTHAUL_REDIS_URL=url)
    assert "leads to a node of a cluster" in said
    assert ONE_ADDRESS in said
