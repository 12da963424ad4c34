"""Groups of panels -> a whole dashboard, with its variables, links and marks on the time axis.

Pure. Both dashboards have the same variables, so a link from one to the other keeps what was chosen.

Source: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.deploy.grafana.layout import Group, place
from outhaul.deploy.grafana.panel import BLUE, PROMETHEUS, RED
from outhaul.deploy.grafana.promql import newest, of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outhaul.deploy.grafana.panel import Json

# The schema of Grafana 11.6; later versions migrate it.
_SCHEMA = 41
_TAG = "outhaul"
# An alert without `source` is shown for every pipeline.
FIRING = 'ALERTS{alertname=~"Outhaul.*", alertstate="firing", source=~"$source|"}'
# A reader that takes over raises the epoch, also if it is the same process after a failure. The range is an hour, since
# there may have been no session for a while.
_BEFORE = f"max by (source) (max_over_time({of('outhaul_reader_epoch')}[1h] offset 1m))"
TAKEN_OVER = f"{newest('outhaul_reader_epoch')} > {_BEFORE}"


def dashboard(uid: str, title: str, description: str, groups: Iterable[Group], *, since: str) -> Json:
    """Return a dashboard that shows the time since `since` (such as `now-1h`) and refreshes automatically."""
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": [_TAG],
        "schemaVersion": _SCHEMA,
        "version": 1,
        "editable": True,
        "timezone": "browser",
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": since, "to": "now"},
        "timepicker": {},
        "fiscalYearStartMonth": 0,
        "templating": {"list": [_datasource(), _source(), _docs()]},
        "annotations": {"list": [_takeovers(), _alerts()]},
        "links": [_siblings()],
        "panels": place(groups),
    }


def _datasource() -> Json:
    return {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus", "hide": 0}


def _source() -> Json:
    return {
        "type": "query",
        "name": "source",
        "label": "Pipeline",
        "description": "OUTHAUL_SOURCE of the pipelines to show",
        "datasource": PROMETHEUS,
        "query": {
            "qryType": 1,
            "query": "label_values(outhaul_build_info, source)",
            "refId": "PrometheusVariableQueryEditor-VariableQuery",
        },
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "refresh": 2,
        "sort": 1,
        "hide": 0,
    }


def _docs() -> Json:
    return {
        "type": "textbox",
        "name": "docs",
        "label": "Docs at",
        "description": "Address of your copy of outhaul's folder docs/: the links in the panels' "
        "descriptions lead there",
        "query": "docs",
        "current": {"selected": True, "text": "docs", "value": "docs"},
        "hide": 0,
    }


def _takeovers() -> Json:
    return _marks("Reader takes over", BLUE, TAKEN_OVER, title="A reader has taken over", text="{{source}}")


def _alerts() -> Json:
    return _marks("Alerts", RED, FIRING, title="{{alertname}}", text="{{source}} {{severity}}")


def _marks(name: str, color: str, expr: str, *, title: str, text: str) -> Json:
    return {
        "name": name,
        "datasource": PROMETHEUS,
        "enable": True,
        "hide": False,
        "iconColor": color,
        "expr": expr,
        "step": "60s",
        "titleFormat": title,
        "textFormat": text,
    }


def _siblings() -> Json:
    """Return the link to each other dashboard of outhaul."""
    return {
        "type": "dashboards",
        "title": "outhaul",
        "tags": [_TAG],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }
