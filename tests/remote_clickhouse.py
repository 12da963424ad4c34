"""A running ClickHouse at an address -> a stack of which it is a part, that tests can use and cannot control.

Edge: HTTP. PostgreSQL and Valkey stay embedded. A test that would stop, kill or look at the server's process is skipped
at that point, with the reason. With a cluster, databases and tables are made on all its servers.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit, urlunsplit

import pytest

from outhaul.deploy.local.fault_proxy import Proxy
from outhaul.deploy.local.stack import NAMES, Stack, Status
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import PipelineError
from outhaul.sink.quoting import clickhouse_literal
from outhaul.sink.replicas import IN_SEQUENCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_VARIABLE = "OUTHAUL_CLICKHOUSE_URL"
_REPLICATED = ("event_log", "event_log_dead_letters", "event_log_epochs", "event_log_pauses")


def whole(url: str) -> str:
    """Return an address with a database, for which `default` stands if it has none."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path if parts.path.strip("/") else "/default"))


def on_cluster(stack: Stack) -> str:
    """Return ` ON CLUSTER name` if the stack's ClickHouse is a cluster, else nothing."""
    name = cluster_of(stack)
    return f" ON CLUSTER {clickhouse_literal(name)}" if name else ""


def cluster_of(stack: Stack) -> str:
    """Return the cluster of the stack's ClickHouse; empty if it is one server."""
    return stack.cluster if isinstance(stack, RemoteStack) else ""


def stop_merges(stack: Stack, clickhouse: ClickHouse) -> None:
    """Stop the merges of event_log, so that no merge hides a row that is stored twice; Cloud may refuse that."""
    with suppress(*([PipelineError] if isinstance(stack, RemoteStack) else [])):
        clickhouse.command("SYSTEM STOP MERGES event_log")


def client(stack: Stack, url: str) -> ClickHouse:
    """Return the client with which a test looks at what is stored."""
    return Looking(url, cluster=stack.cluster) if isinstance(stack, RemoteStack) else ClickHouse(url, timeout_s=30)


def proxied(url: str) -> tuple[Proxy, str]:
    """Start a proxy before a ClickHouse; return it, and the address that leads through it."""
    parts = urlsplit(url)
    if parts.scheme != "http":
        pytest.skip("a proxy for faults cannot read TLS")
    proxy = Proxy(parts.port or 8123, target_host=parts.hostname or "")
    login, _, _ = parts.netloc.rpartition("@")
    return proxy, urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{proxy.port}"))


class RemoteStack(Stack):
    """The embedded PostgreSQL and Valkey, and a ClickHouse elsewhere."""

    def __init__(self, data_dir: Path, url: str, cluster: str) -> None:
        """Keep the address; nothing is started."""
        super().__init__(data_dir)
        self._url = whole(url)
        self.cluster = cluster

    def up(self, services: Iterable[str] | None = None) -> list[str]:
        """Start the embedded services."""
        chosen = [name for name in (NAMES if services is None else services) if name != "clickhouse"]
        return super().up(chosen) if chosen else []

    def down(self, services: Iterable[str] | None = None) -> None:
        """Stop the embedded services."""
        if services is not None and "clickhouse" in (services := list(services)):
            _not_ours()
        super().down(services)

    def kill(self, service: str) -> None:
        """Kill an embedded service."""
        if service == "clickhouse":
            _not_ours()
        super().kill(service)

    def pid(self, service: str) -> int | None:
        """Return the pid of an embedded service."""
        if service == "clickhouse":
            _not_ours()
        return super().pid(service)

    def status(self) -> dict[str, Status]:
        """Skip the test."""
        _not_ours()

    def env(self) -> dict[str, str]:
        """Return the three URLs."""
        return super().env() | {_VARIABLE: self._url}


class Looking(ClickHouse):
    """A client that sees what any server has acknowledged, whichever of them answers."""

    def __init__(self, url: str, *, cluster: str) -> None:
        """Keep the address."""
        super().__init__(url, timeout_s=60)
        self._cluster = clickhouse_literal(cluster) if cluster else ""

    def rows(
        self, query: str, *, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> Sequence[Sequence[Any]]:
        """Return the rows of a query, after all replicas have what one has."""
        for table in _REPLICATED if self._cluster else ():
            if table in query:
                self.command(f"SYSTEM SYNC REPLICA ON CLUSTER {self._cluster} {table} IF EXISTS")
        return super().rows(query, parameters=parameters, settings=IN_SEQUENCE | dict(settings or {}))


def _not_ours() -> NoReturn:
    pytest.skip("needs control over the process of ClickHouse, which --clickhouse-url does not give")
