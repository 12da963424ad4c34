"""Groups of panels for operators -> the dashboard `outhaul`.

Pure. The first three groups fit a screen of 1080 lines. They answer: is anything lost, how far behind is it, is the
primary safe?
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.deploy.grafana.dashboard import dashboard
from outhaul.deploy.grafana.groups.audit import audit, dead_letters
from outhaul.deploy.grafana.groups.clickhouse import clickhouse
from outhaul.deploy.grafana.groups.delay import delay
from outhaul.deploy.grafana.groups.health import health
from outhaul.deploy.grafana.groups.slot import primary
from outhaul.deploy.grafana.groups.throughput import throughput

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard


def overview() -> Dashboard:
    """Return the dashboard."""
    groups = (health(), delay(), primary(), throughput(), clickhouse(), dead_letters(), audit())
    return dashboard(
        "outhaul",
        "outhaul",
        "Is anything lost, how far behind is it, is the primary safe?",
        groups,
        since="now-1h",
    )
