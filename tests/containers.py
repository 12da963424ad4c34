"""Images of servers -> a stack of containers, which tests use as they use the embedded one.

Edge: Docker, by testcontainers. What has no image stays embedded. A container keeps its data and its port when it is
killed and started again, as a server's machine would.

Source: https://testcontainers-python.readthedocs.io/
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import psycopg
import redis
from testcontainers.core.container import DockerContainer

from outhaul.deploy.local.ports import free
from outhaul.deploy.local.stack import NAMES, Stack, Status
from outhaul.sink.clickhouse import ClickHouse
from tests.acceptance.metrics_pages import free_port
from tests.conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

_USER = _PASSWORD = _DATABASE = "outhaul"
# Versions that are in wide use; the embedded stack has the newest ones.
OFFICIAL = {"postgres": "postgres:17", "redis": "redis:7.4-alpine", "clickhouse": "clickhouse/clickhouse-server:25.8"}


def images(prefix: str) -> dict[str, str]:
    """Return the image of each server: the official ones, or what tests/images/make.sh has made under a prefix."""
    return {name: f"{prefix}/{name}" for name in ("postgres", "redis")} if prefix else OFFICIAL


@dataclass(frozen=True)
class Recipe:
    """How one server is run, and how it is asked whether it is there."""

    port: int
    url: str
    version: Callable[[str], str]
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def _postgres_version(url: str) -> str:
    with psycopg.connect(url, connect_timeout=2) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    return str(row[0]) if row else ""


def _redis_version(url: str) -> str:
    with redis.Redis.from_url(url, socket_timeout=2) as client:
        info: Any = client.info("server")
    return str(info["redis_version"])


def _clickhouse_version(url: str) -> str:
    with urlopen(f"http://{url.partition('@')[2].partition('/')[0]}/ping", timeout=2):
        return str(ClickHouse(url, timeout_s=5).rows("SELECT version()")[0][0])


# As the embedded one has them.
_POSTGRES = {"wal_level": "logical", "max_wal_senders": 20, "max_replication_slots": 20, "max_connections": 200}
_RECIPES = {
    "postgres": Recipe(
        5432,
        f"postgresql://{_USER}@127.0.0.1:{{port}}/{_DATABASE}",
        _postgres_version,
        ("postgres", *(f"--{name}={value}" for name, value in _POSTGRES.items())),
        # Tests log in under roles that they make, as in the embedded stack; only this machine reaches the port.
        {"POSTGRES_USER": _USER, "POSTGRES_DB": _DATABASE, "POSTGRES_HOST_AUTH_METHOD": "trust"},
    ),
    "redis": Recipe(
        6379,
        "redis://127.0.0.1:{port}/0",
        _redis_version,
        ("redis-server", "--appendonly", "yes", "--bind", "*", "--protected-mode", "no"),
    ),
    "clickhouse": Recipe(
        8123,
        f"http://{_USER}:{_PASSWORD}@127.0.0.1:{{port}}/{_DATABASE}",
        _clickhouse_version,
        environment={
            "CLICKHOUSE_USER": _USER,
            "CLICKHOUSE_PASSWORD": _PASSWORD,
            "CLICKHOUSE_DB": _DATABASE,
            "CLICKHOUSE_DEFAULT_ACCESS_MANAGEMENT": "1",
        },
    ),
}
_VARIABLES = {"postgres": "OUTHAUL_POSTGRES_DSN", "redis": "OUTHAUL_REDIS_URL", "clickhouse": "OUTHAUL_CLICKHOUSE_URL"}
_AWAY = (psycopg.OperationalError, redis.ConnectionError, redis.TimeoutError, OSError)


class Contained(Stack):
    """Servers in containers, and the embedded ones where there is no image."""

    def __init__(self, data_dir: Path, images: Mapping[str, str]) -> None:
        """Start nothing yet."""
        super().__init__(data_dir)
        self._images = images
        self._made: dict[str, DockerContainer] = {}
        self._host_ports: dict[str, int] = {}

    def up(self, services: Iterable[str] | None = None) -> list[str]:
        """Start these services, or all, and wait until they answer."""
        chosen = list(NAMES if services is None else services)
        if embedded := [name for name in chosen if name not in self._images]:
            super().up(embedded)
        for name in (name for name in chosen if name in self._images):
            if name not in self._made:
                self._made[name] = self._make(name)
            elif not self.pid(name):
                self._made[name].get_wrapped_container().start()
        for name in (name for name in chosen if name in self._images):
            until(partial(self._version, name), within_s=60, what=f"{name} answers in its container")
        return []

    def down(self, services: Iterable[str] | None = None) -> None:
        """Stop these services, or all; when all are stopped, the containers are removed."""
        chosen = list(NAMES if services is None else services)
        if embedded := [name for name in chosen if name not in self._images]:
            super().down(None if services is None else embedded)
        for name in [name for name in chosen if name in self._made]:
            if services is None:
                self._made.pop(name).stop()
            else:
                self._made[name].get_wrapped_container().stop()

    def kill(self, service: str) -> None:
        """End a service by SIGKILL, and wait until it is gone."""
        if service not in self._images:
            super().kill(service)
            return
        self._made[service].get_wrapped_container().kill()
        until(lambda: not self.pid(service), what=f"{service} is gone")

    def status(self) -> dict[str, Status]:
        """Look at all services."""
        return super().status() | {name: self._contained(name) for name in self._made}

    def pid(self, service: str) -> int | None:
        """Return the pid of a service on this machine, if it runs."""
        if service not in self._images:
            return super().pid(service)
        if service not in self._made:
            return None
        container = self._made[service].get_wrapped_container()
        container.reload()
        return int(container.attrs["State"]["Pid"]) or None

    def env(self) -> dict[str, str]:
        """Return the three URLs."""
        embedded = super().env() if len(self._images) < len(NAMES) else {}
        return embedded | {_VARIABLES[name]: self._url(name) for name in self._made}

    def _make(self, name: str) -> DockerContainer:
        recipe = _RECIPES[name]
        port = self._host_ports[name] = free_port()
        container = DockerContainer(self._images[name]).with_bind_ports(recipe.port, port)
        if recipe.command:
            container = container.with_command(list(recipe.command))
        for variable, value in recipe.environment.items():
            container = container.with_env(variable, value)
        return container.start()

    def _url(self, name: str) -> str:
        return _RECIPES[name].url.format(port=self._host_ports[name])

    def _version(self, name: str) -> str:
        # Before the port is published nobody listens; then it is Docker that does, until the server answers.
        if free(self._host_ports[name]):
            return ""
        try:
            return _RECIPES[name].version(self._url(name))
        except _AWAY:
            return ""

    def _contained(self, name: str) -> Status:
        pid = self.pid(name)
        version = self._version(name) or None
        return Status(name, pid is not None, pid, self._host_ports[name], version, self._url(name))
