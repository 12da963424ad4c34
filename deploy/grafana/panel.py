"""A title, a unit, a description and expressions -> a panel of a Grafana dashboard.

Pure. Panels have a width and a height; `layout.py` adds positions and numbers.

Source: https://grafana.github.io/grafana-foundation-sdk/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import common, dashboard, prometheus, statetimeline, timeseries
from grafana_foundation_sdk.builders import heatmap as heatmap_builder
from grafana_foundation_sdk.builders import stat as stat_builder
from grafana_foundation_sdk.builders import table as table_builder
from grafana_foundation_sdk.models import common as choices
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_choices
from grafana_foundation_sdk.models.prometheus import PromQueryFormat, QueryEditorMode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grafana_foundation_sdk.models.dashboard import Panel

Steps = tuple[tuple[float | None, str], ...]

PROMETHEUS = models.DataSourceRef("prometheus", "${datasource}")
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


_LIMIT = [
    models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": RED}),
    models.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 8]}),
    models.DynamicConfigValue("custom.fillOpacity", 0),
]
_STAT = Size(3, 3)
_GRAPH = Size(8, 8)


def stat(
    title: str,
    about: About,
    *queries: Query,
    unit: str,
    steps: Steps = PLAIN,
    texts: Mapping[int, tuple[str, str]] | None = None,
    empty: str = "no data",
    size: Size = _STAT,
) -> Panel:
    """Return one large value, coloured by thresholds; `texts` are texts and colours for numbers."""
    made = (
        stat_builder.Panel()
        .mappings(_mappings(texts or {}))
        .graph_mode(choices.BigValueGraphMode.NONE)
        .color_mode(choices.BigValueColorMode.BACKGROUND)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .build()
    )
    return _panel(made, title, about, [_target(one).instant() for one in queries], unit, steps, empty, size)


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
) -> Panel:
    """Return lines over time from 0 up; thresholds are dashed lines, and series named `limit ...` are red."""
    stacking = choices.StackingMode.NORMAL if stacked else choices.StackingMode.NONE
    dashes = choices.GraphThresholdsStyleMode.DASHED if steps else choices.GraphThresholdsStyleMode.OFF
    tooltip = common.VizTooltipOptions().mode(choices.TooltipDisplayMode.MULTI).sort(choices.SortOrder.DESCENDING)
    builder = (
        timeseries.Panel()
        .min(0)
        .draw_style(choices.GraphDrawStyle.BARS if bars else choices.GraphDrawStyle.LINE)
        .line_width(0 if bars else 1)
        .fill_opacity(60 if bars or stacked else 8)
        .show_points(choices.VisibilityMode.NEVER)
        .stacking(common.StackingConfig().mode(stacking).group("A"))
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(dashes))
        .legend(_legend(shown=True))
        .tooltip(tooltip)
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC))
        .override_by_regexp("/^limit/", _LIMIT)
    )
    if most is not None:
        builder.max(most)
    return _panel(builder.build(), title, about, [*map(_target, queries)], unit, steps or PLAIN, empty, size)


def heatmap(title: str, about: About, query: Query, *, unit: str, size: Size = _GRAPH) -> Panel:
    """Return the buckets of a histogram over time."""
    color = (
        heatmap_builder.HeatmapColorOptions()
        .mode(heatmap_choices.HeatmapColorMode.SCHEME)
        .scheme("Spectral")
        .fill("dark-orange")
        .scale(heatmap_choices.HeatmapColorScale.EXPONENTIAL)
        .exponent(0.5)
        .steps(64)
        .reverse(True)
    )
    axis = heatmap_builder.YAxisConfig().unit(unit).axis_placement(choices.AxisPlacement.LEFT)
    made = (
        heatmap_builder.Panel()
        .color(color)
        .show_value(choices.VisibilityMode.NEVER)
        .y_axis(axis)
        .hide_legend()
        .show_y_histogram()
        .build()
    )
    target = _target(query).format(PromQueryFormat.HEATMAP)
    return _panel(made, title, about, [target], unit, PLAIN, "no data", size)


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
) -> Panel:
    """Return a table of current values: `columns` are labels and `Value #A` ... with their headings, in order."""
    order = {name: place for place, name in enumerate(columns)}
    builder = table_builder.Panel().sort_by([common.TableSortByFieldState().display_name(sort).desc(descending)])
    if len(queries) > 1:
        builder.with_transformation(models.DataTransformerConfig("merge", options={}))
    # `filterFieldsByName` drops all other fields, so a new label of a server does not add a column.
    keep = {"include": {"names": list(columns)}}
    builder.with_transformation(models.DataTransformerConfig("filterFieldsByName", options=keep))
    rename = {"indexByName": order, "renameByName": dict(columns), "excludeByName": {}}
    builder.with_transformation(models.DataTransformerConfig("organize", options=rename))
    targets = [_target(one).instant().format(PromQueryFormat.TABLE) for one in queries]
    for heading, shown in (units or {}).items():
        builder.override_by_name(heading, [models.DynamicConfigValue("unit", shown)])
    return _panel(builder.build(), title, about, targets, unit, PLAIN, empty, size)


def timeline(
    title: str,
    about: About,
    query: Query,
    *,
    unit: str = "none",
    texts: Mapping[int, tuple[str, str]],
    size: Size = _GRAPH,
) -> Panel:
    """Return the state of each series over time, out of several named states."""
    made = (
        statetimeline.Panel()
        .mappings(_mappings(texts))
        .fill_opacity(70)
        .line_width(0)
        .legend(_legend(shown=False))
        .tooltip(common.VizTooltipOptions().mode(choices.TooltipDisplayMode.SINGLE).sort(choices.SortOrder.NONE))
        .build()
    )
    return _panel(made, title, about, [_target(query)], unit, PLAIN, "no data", size)


def _panel(
    made: Panel,
    title: str,
    about: About,
    targets: Sequence[prometheus.Dataquery],
    unit: str,
    steps: Steps,
    empty: str,
    size: Size,
) -> Panel:
    """Fill in what all kinds of panels have."""
    made.title, made.description = title, _description(about)
    made.datasource, made.plugin_version = PROMETHEUS, VERSION
    made.grid_pos = models.GridPos(w=size.w, h=size.h)
    made.targets = [target.ref_id(chr(ord("A") + place)).build() for place, target in enumerate(targets)]
    made.field_config = made.field_config or models.FieldConfigSource()
    field = made.field_config.defaults
    field.unit, field.no_value = unit, empty
    field.color = field.color or models.FieldColor(models.FieldColorModeId.THRESHOLDS)
    made_steps = [models.Threshold(value, color) for value, color in steps]
    field.thresholds = models.ThresholdsConfig(models.ThresholdsMode.ABSOLUTE, made_steps)
    return made


def _description(about: About) -> str:
    """Return Markdown; the link shows the page's path in the checkout and leads below the variable `docs`."""
    return (
        f"**Normal:** {about.normal}\n\n**Otherwise:** {about.otherwise}\n\n[docs/{about.page}](${{docs}}/{about.page})"
    )


def _target(query: Query) -> prometheus.Dataquery:
    made = prometheus.Dataquery().datasource(PROMETHEUS).expr(query.expr).legend_format(query.legend)
    return made.editor_mode(QueryEditorMode.CODE).range()


def _legend(*, shown: bool) -> common.VizLegendOptions:
    made = common.VizLegendOptions().display_mode(choices.LegendDisplayMode.LIST).show_legend(shown)
    return made.placement(choices.LegendPlacement.BOTTOM)


def _mappings(texts: Mapping[int, tuple[str, str]]) -> list[models.ValueMapping]:
    options = {
        str(value): models.ValueMappingResult(text=text, color=color, index=place)
        for place, (value, (text, color)) in enumerate(texts.items())
    }
    return [models.ValueMap(options)] if options else []
