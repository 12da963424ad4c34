"""Groups of panels that show causes -> the dashboard `outhaul-depth`.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.deploy.grafana.dashboard import dashboard
from outhaul.deploy.grafana.groups.batches import batches
from outhaul.deploy.grafana.groups.processes import processes
from outhaul.deploy.grafana.groups.reader import reader, repeats
from outhaul.deploy.grafana.groups.redis import redis
from outhaul.deploy.grafana.groups.storage import storage
from outhaul.deploy.grafana.groups.workers import workers

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard


def depth() -> Dashboard:
    """Return the dashboard."""
    groups = (batches(), reader(), repeats(), workers(), redis(), processes(), storage())
    return dashboard(
        "outhaul-depth",
        "outhaul in depth",
        "Batches, stages, repeated work, workers, Redis, processes, months.",
        groups,
        since="now-3h",
    )
