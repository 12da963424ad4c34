"""The image, run as it is meant to be: nobody's user, no capability, a root file system that cannot be written to."""

from __future__ import annotations

import json
import os
import shlex
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.metrics_pages import Pages, free_port
from tests.conftest import World, until
from tests.docker import docker, docker_answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
IMAGE = "outhaul:tested"
HARDENED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
# What to add to `docker build`, such as --build-arg PYTHON_IMAGE=…, where the default base cannot be pulled.
BUILD = shlex.split(os.environ.get("DOCKER_BUILD_ARGS", ""))


@pytest.fixture(scope="module")
def image() -> str:
    if not docker_answers():
        pytest.skip("no Docker daemon answers")
    docker("build", "--file", str(ROOT / "deploy" / "Dockerfile"), "--tag", IMAGE, *BUILD, str(ROOT), timeout_s=900)
    return IMAGE


class Containers:
    """Containers of one world; they share this machine's network, on which the servers of the stack listen."""

    def __init__(self, world: World, image: str) -> None:
        self.world = world
        self.image = image
        self.ids: dict[str, str] = {}
        self.pages = Pages({})

    def run(self, *command: str, code: int = 0) -> str:
        return docker("run", "--rm", *self._options(0), self.image, *command, code=code)

    def start(self, name: str) -> None:
        self.pages.ports[name] = free_port()
        options = self._options(self.pages.ports[name])
        self.ids[name] = docker("run", "--detach", "--health-interval=1s", *options, self.image, name).strip()

    def state(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(docker("inspect", self.ids[name]))[0]["State"]
        return found

    def healthy(self, name: str) -> bool:
        state = self.state(name)
        assert state["Running"], docker("logs", self.ids[name])
        return bool(state["Health"]["Status"] == "healthy")

    def stop(self, name: str) -> int:
        """Send SIGTERM, wait, and return the exit code; a container that had to be killed has another one."""
        docker("stop", "--time=60", self.ids[name])
        return int(self.state(name)["ExitCode"])

    def remove(self) -> None:
        for name, known in self.ids.items():
            print(f"--- {name}", *docker("logs", known).splitlines()[-15:], sep="\n")
            docker("rm", "--force", known)

    def _options(self, port: int) -> list[str]:
        settings = self.world.env | {"OUTHAUL_METRICS_PORT": str(port), "OUTHAUL_METRICS_HOST": "127.0.0.1"}
        return ["--network=host", *HARDENED, *(f"--env={name}={value}" for name, value in settings.items())]


@pytest.fixture
def containers(image: str, make_world: Callable[..., World]) -> Iterator[Containers]:
    made = Containers(make_world(setup=False), image)
    yield made
    made.remove()


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_row_passes_through_containers_that_write_nowhere_and_end_cleanly(containers: Containers) -> None:
    world, names = containers.world, ("worker", "reader", "exporter")
    assert "0001_outbox.sql" in containers.run("setup")
    for name in names:
        containers.start(name)
    for name in names:
        until(partial(containers.healthy, name), what=f"{name} is healthy", within_s=60)
        assert "uid=10001(outhaul) gid=10001(outhaul)" in docker("exec", containers.ids[name], "id")
        assert "Read-only file system" in docker("exec", containers.ids[name], "touch", "/opt/outhaul/x", code=1)
    world.insert(100)
    world.assert_once_each()
    until(
        lambda: "outhaul_worker_events_stored_total{" in containers.pages.text("worker"),
        what="Celery's children have counted",
    )
    assert json.loads(containers.run("status", "--json"))["wrong"] == []
    # Nothing but their pages of metrics is written, and only to /tmp.
    for name in names:
        assert all(line[2:].startswith("/tmp") for line in docker("diff", containers.ids[name]).splitlines())
    started = time.monotonic()
    assert {name: containers.stop(name) for name in ("reader", "worker", "exporter")} == dict.fromkeys(names, 0)
    assert time.monotonic() - started < 60
    assert world.sql("SELECT active FROM pg_replication_slots WHERE slot_name = %s", world.settings.slot) is False


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_container_whose_server_is_away_ends_with_the_code_that_says_so(containers: Containers) -> None:
    containers.world.env["OUTHAUL_POSTGRES_DSN"] = f"postgresql://x@127.0.0.1:{free_port()}/x"
    said = containers.run("reader", code=10)
    assert "127.0.0.1" in said
