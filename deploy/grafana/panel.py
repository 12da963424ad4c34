"""A title, a unit, a description and expressions -> a panel of a Grafana dashboard.

Pure. Panels have a width and a height; `layout.py` adds positions and numbers.

Source: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Json = dict[str, Any]
Steps = tuple[tuple[float | None, str], ...]

PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
VERSION = "11.6.0"

GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"
# No threshold.
PLAIN: Steps = ((None, BLUE),)
# A count that should be 0.
NONE_IS_FINE: Steps = ((None, GREEN), (1, RED))
# 1 is up, 0 is down.
UP: Steps = ((None, RED), (1, GREEN))


@dataclass(frozen=True, slots=True)
class Query:
    """An expression and the legend of its series."""

    expr: str
    legend: str = "{{source}}"


@dataclass(frozen=True, slots=True)
class About:
    """What is normal, what to do otherwise, and a page below docs/ with more."""

    normal: str
    otherwise: str
    page: str


@dataclass(frozen=True, slots=True)
class Size:
    """Width in 24ths of the screen, height in units of about 38 pixels."""

    w: int
    h: int


_STAT = Size(3, 3)
_GRAPH = Size(8, 8)
_LEGEND = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
_LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}


def stat(
    title: str,
    about: About,
    *queries: Query,
    unit: str,
    steps: Steps = PLAIN,
    texts: Mapping[int, tuple[str, str]] | None = None,
    empty: str = "no data",
    size: Size = _STAT,
) -> Json:
    """Return one large value, coloured by thresholds; `texts` are texts and colours for numbers."""
    field = _field(unit, steps, empty) | {"mappings": _mappings(texts or {})}
    options = {
        "graphMode": "none",
        "colorMode": "background",
        "justifyMode": "auto",
        "textMode": "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
        "orientation": "auto",
        "reduceOptions": _LAST,
    }
    return _panel("stat", title, about, [_target(one, instant=True) for one in queries], field, options, size)


def lines(
    title: str,
    about: About,
    *queries: Query,
    unit: str,
    steps: Steps = (),
    stacked: bool = False,
    bars: bool = False,
    most: float | None = None,
    empty: str = "no data",
    size: Size = _GRAPH,
) -> Json:
    """Return lines over time from 0 up; thresholds are dashed lines, and series named `limit ...` are red."""
    custom = {
        "drawStyle": "bars" if bars else "line",
        "lineWidth": 0 if bars else 1,
        "fillOpacity": 60 if bars or stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if steps else "off"},
    }
    field = _field(unit, steps or PLAIN, empty) | {
        "min": 0,
        "color": {"mode": "palette-classic"},
        "custom": custom,
    }
    if most is not None:
        field["max"] = most
    options = {"legend": _LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}}
    targets = [_target(one) for one in queries]
    return _panel("timeseries", title, about, targets, field, options, size, [_limits_red()])


def heatmap(title: str, about: About, query: Query, *, unit: str, size: Size = _GRAPH) -> Json:
    """Return the buckets of a histogram over time."""
    options = {
        "calculate": False,
        "color": {
            "mode": "scheme",
            "scheme": "Spectral",
            "fill": "dark-orange",
            "scale": "exponential",
            "exponent": 0.5,
            "steps": 64,
            "reverse": True,
        },
        "cellGap": 1,
        "filterValues": {"le": 1e-9},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "yAxis": {"unit": unit, "axisPlacement": "left", "reverse": False},
        "legend": {"show": False},
        "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": False},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
    }
    target = _target(query) | {"format": "heatmap"}
    return _panel("heatmap", title, about, [target], _field(unit, PLAIN, "no data"), options, size)


def table(
    title: str,
    about: About,
    *queries: Query,
    unit: str,
    columns: Mapping[str, str],
    units: Mapping[str, str] | None = None,
    sort: str,
    descending: bool = True,
    empty: str = "no data",
    size: Size,
) -> Json:
    """Return a table of current values: `columns` are labels and `Value #A` ... with their headings, in order."""
    several = [{"id": "merge", "options": {}}] if len(queries) > 1 else []
    # `filterFieldsByName` drops all other fields, so a new label of a server does not add a column.
    keep = {"id": "filterFieldsByName", "options": {"include": {"names": list(columns)}}}
    order = {name: place for place, name in enumerate(columns)}
    name = {"id": "organize", "options": {"indexByName": order, "renameByName": dict(columns), "excludeByName": {}}}
    field = _field(unit, PLAIN, empty) | {"custom": {"align": "auto", "cellOptions": {"type": "auto"}}}
    options = {
        "frameIndex": 0,
        "showHeader": True,
        "cellHeight": "sm",
        "sortBy": [{"displayName": sort, "desc": descending}],
        "footer": {"show": False, "reducer": ["sum"], "countRows": False},
    }
    targets = [_target(one, instant=True) | {"format": "table"} for one in queries]
    overrides = [_override("byName", heading, {"unit": shown}) for heading, shown in (units or {}).items()]
    made = _panel("table", title, about, targets, field, options, size, overrides)
    return made | {"transformations": [*several, keep, name]}


def timeline(
    title: str,
    about: About,
    query: Query,
    *,
    unit: str = "none",
    texts: Mapping[int, tuple[str, str]],
    size: Size = _GRAPH,
) -> Json:
    """Return the state of each series over time, out of several named states."""
    field = _field(unit, PLAIN, "no data") | {
        "mappings": _mappings(texts),
        "custom": {"fillOpacity": 70, "lineWidth": 0},
    }
    options = {
        "showValue": "auto",
        "rowHeight": 0.9,
        "mergeValues": True,
        "alignValue": "left",
        "legend": _LEGEND | {"showLegend": False},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return _panel("state-timeline", title, about, [_target(query)], field, options, size)


def _panel(
    kind: str,
    title: str,
    about: About,
    targets: Sequence[Json],
    field: Json,
    options: Json,
    size: Size,
    overrides: Sequence[Json] = (),
) -> Json:
    return {
        "type": kind,
        "title": title,
        "description": _description(about),
        "datasource": PROMETHEUS,
        "pluginVersion": VERSION,
        "gridPos": {"w": size.w, "h": size.h},
        "targets": [{"refId": chr(ord("A") + place), **target} for place, target in enumerate(targets)],
        "fieldConfig": {"defaults": field, "overrides": list(overrides)},
        "options": options,
    }


def _description(about: About) -> str:
    """Return Markdown; the link shows the page's path in the checkout and leads below the variable `docs`."""
    return (
        f"**Normal:** {about.normal}\n\n**Otherwise:** {about.otherwise}\n\n[docs/{about.page}](${{docs}}/{about.page})"
    )


def _target(query: Query, *, instant: bool = False) -> Json:
    return {
        "datasource": PROMETHEUS,
        "expr": query.expr,
        "legendFormat": query.legend,
        "editorMode": "code",
        "instant": instant,
        "range": not instant,
    }


def _field(unit: str, steps: Steps, empty: str) -> Json:
    made = [{"value": value, "color": color} for value, color in steps]
    return {
        "unit": unit,
        "noValue": empty,
        "color": {"mode": "thresholds"},
        "thresholds": {"mode": "absolute", "steps": made},
    }


def _mappings(texts: Mapping[int, tuple[str, str]]) -> list[Json]:
    if not texts:
        return []
    options = {
        str(value): {"text": text, "color": color, "index": place}
        for place, (value, (text, color)) in enumerate(texts.items())
    }
    return [{"type": "value", "options": options}]


def _override(matcher: str, options: str, properties: Json) -> Json:
    return {
        "matcher": {"id": matcher, "options": options},
        "properties": [{"id": name, "value": value} for name, value in properties.items()],
    }


def _limits_red() -> Json:
    return _override(
        "byRegexp",
        "/^limit/",
        {
            "color": {"mode": "fixed", "fixedColor": RED},
            "custom.lineStyle": {"fill": "dash", "dash": [8, 8]},
            "custom.fillOpacity": 0,
        },
    )
