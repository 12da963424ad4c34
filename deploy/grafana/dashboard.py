"""Groups of panels -> a whole dashboard, with its variables, links and marks on the time axis.

Pure. Both dashboards have the same variables, so a link from one to the other keeps what was chosen.

Source: https://grafana.github.io/grafana-foundation-sdk/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    VariableHide,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from outhaul.deploy.grafana.layout import Group, place
from outhaul.deploy.grafana.panel import BLUE, PROMETHEUS, RED
from outhaul.deploy.grafana.promql import newest, of

if TYPE_CHECKING:
    from collections.abc import Iterable

_TAG, _SHOWN = "outhaul", VariableHide.DONT_HIDE
# An alert without `source` is shown for every pipeline.
FIRING = 'ALERTS{alertname=~"Outhaul.*", alertstate="firing", source=~"$source|"}'
# A reader that takes over raises the epoch, also if it is the same process after a failure. The range is an hour, since
# there may have been no session for a while.
_BEFORE = f"max by (source) (max_over_time({of('outhaul_reader_epoch')}[1h] offset 1m))"
TAKEN_OVER = f"{newest('outhaul_reader_epoch')} > {_BEFORE}"


class Marks(AnnotationQuery):
    """Marks on the time axis with a title and a text; the SDK lacks these two, which are Prometheus' own."""

    def __init__(self, name: str, color: str, expr: str, *, title: str, text: str) -> None:
        """Mark when `expr` has a value."""
        super().__init__(name=name, datasource=PROMETHEUS, icon_color=color, expr=expr)
        self._own = {"step": "60s", "titleFormat": title, "textFormat": text}

    def to_json(self) -> dict[str, object]:
        """Return it in JSON types."""
        return super().to_json() | self._own


def dashboard(uid: str, title: str, description: str, groups: Iterable[Group], *, since: str) -> Dashboard:
    """Return a dashboard that shows the time since `since` (such as `now-1h`) and refreshes automatically."""
    made = (
        builders.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([_TAG])
        .version(1)
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .refresh("10s")
        .time(since, "now")
        .variables([_datasource(), _source(), _docs()])
        .link(_siblings())
        .build()
    )
    made.annotations.list_val = [
        Marks("Reader takes over", BLUE, TAKEN_OVER, title="A reader has taken over", text="{{source}}"),
        Marks("Alerts", RED, FIRING, title="{{alertname}}", text="{{source}} {{severity}}"),
    ]
    made.panels = place(groups)
    return made


def _datasource() -> builders.DatasourceVariable:
    return builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus").hide(_SHOWN)


def _source() -> builders.QueryVariable:
    query: dict[str, object] = {
        "qryType": 1,
        "query": "label_values(outhaul_build_info, source)",
        "refId": "PrometheusVariableQueryEditor-VariableQuery",
    }
    return (
        builders.QueryVariable("source")
        .label("Pipeline")
        .description("OUTHAUL_SOURCE of the pipelines to show")
        .datasource(PROMETHEUS)
        .query(query)
        .current(VariableOption(True, ["All"], ["$__all"]))
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .hide(_SHOWN)
    )


def _docs() -> builders.TextBoxVariable:
    return (
        builders.TextBoxVariable("docs")
        .label("Docs at")
        .description("Address of your copy of outhaul's folder docs/: the links in the panels' descriptions lead there")
        .default_value("docs")
        .current(VariableOption(True, "docs", "docs"))
        .hide(_SHOWN)
    )


def _siblings() -> builders.DashboardLink:
    """Return the link to each other dashboard of outhaul."""
    made = builders.DashboardLink("outhaul").type(DashboardLinkType.DASHBOARDS).tags([_TAG]).icon("external link")
    return made.include_vars(True).keep_time(True)
