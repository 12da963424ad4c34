"""Processes with their metrics ports, and what these pages say."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import until

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from tests.conftest import World


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Pages:
    """The pages of some processes of a world, by the names of the processes."""

    ports: dict[str, int]

    def text(self, name: str, path: str = "/metrics") -> str:
        return self.answer(name, path)[1]

    def answer(self, name: str, path: str) -> tuple[int, str]:
        """Return status and text of a page; status 0 where nobody answers."""
        try:
            with urlopen(f"http://127.0.0.1:{self.ports[name]}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def families(self, name: str) -> dict[str, Metric]:
        """Return the `outhaul_*` metrics that a process shows, by the names that Prometheus gives their samples."""
        found = text_string_to_metric_families(self.text(name))
        ours = (one for one in found if one.name.startswith("outhaul_"))
        return {f"{one.name}_total" if one.type == "counter" else one.name: one for one in ours}

    def value(self, name: str, metric: str, **labels: str) -> float | None:
        """Return one sample, or the sum of those that have these labels; None if no sample has them."""
        found = [
            sample.value
            for family in self.families(name).values()
            for sample in family.samples
            if sample.name == metric and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None


def start(world: World, *names: str, **env: str) -> Pages:
    """Start processes of a world, each with a port, and wait until all are ready."""
    ports = {}
    for name in names:
        ports[name] = free_port()
        world.pipeline.start(name, OUTHAUL_METRICS_PORT=str(ports[name]), **env)
    pages = Pages(ports)
    for name in names:
        until(lambda name=name: pages.answer(name, "/readyz")[0] == 200, what=f"{name} is ready")  # type: ignore[misc]
    return pages
