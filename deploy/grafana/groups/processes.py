"""Metrics of outhaul's processes -> panels of memory, CPU, versions, and the exporter's own work.

Pure. The client library's `process_*` have no `source`: they are joined with `outhaul_build_info` of the same scrape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.deploy.grafana.layout import Group
from outhaul.deploy.grafana.panel import About, Query, Size, lines, table
from outhaul.deploy.grafana.promql import newest, of, times

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Panel

_QUARTER = Size(6, 8)


def processes() -> Group:
    """Return the group."""
    return Group("Processes", (_memory(), _cpu(), _versions(), _looks(), _failures(), _unexpected()))


def _of_process(expr: str) -> str:
    return f"{expr} * on (job, instance) group_left (source, process) {of('outhaul_build_info')}"


def _memory() -> Panel:
    return lines(
        "Memory",
        About(
            "100 to 250 MB each, with any backlog. For a worker it is the watchdog alone, about 100 MB.",
            "a climb over days is a leak: keep the log, restart the process (`kill -9` is safe), report it.",
            "performance.md",
        ),
        Query(_of_process("process_resident_memory_bytes"), "{{process}} {{instance}}"),
        unit="bytes",
        size=_QUARTER,
    )


def _cpu() -> Panel:
    return lines(
        "CPU",
        About(
            "1 % of a core when idle. For a worker it is the watchdog alone.",
            "100 %: that process is the bottleneck. If it is a worker, start more.",
            "performance.md",
        ),
        Query(_of_process("rate(process_cpu_seconds_total[$__rate_interval])"), "{{process}} {{instance}}"),
        unit="percentunit",
        size=_QUARTER,
    )


def _versions() -> Panel:
    return table(
        "Which versions run?",
        About(
            "one version everywhere.",
            "readers and workers of different versions may be incompatible: run one version.",
            "runbooks/nothing-stored.md",
        ),
        Query(of("outhaul_build_info")),
        unit="none",
        columns={
            "source": "pipeline",
            "process": "process",
            "version": "version",
            "python": "Python",
            "instance": "at",
        },
        sort="process",
        descending=False,
        size=Size(12, 8),
    )


def _looks() -> Panel:
    return lines(
        "Duration of the exporter's checks",
        About(
            "milliseconds for each server; *celery* waits a second for answers, an audit can take seconds.",
            "that server is slow.",
            "runbooks/README.md",
        ),
        Query(newest("outhaul_exporter_look_seconds", "server"), "{{server}} {{source}}"),
        unit="s",
        size=Size(12, 8),
    )


def _failures() -> Panel:
    return lines(
        "Failed checks",
        About(
            "none.",
            "that server did not answer, or refused a query: see the exporter's log.",
            "runbooks/README.md",
        ),
        Query(times("outhaul_exporter_failures_total", "server", process="exporter"), "{{server}} {{source}}"),
        unit="short",
        bars=True,
        size=Size(12, 8),
    )


def _unexpected() -> Panel:
    return lines(
        "Unexpected failures",
        About(
            "none.",
            "a process failed in a way that nobody foresaw: `outhaul status` has the first line of the exception.",
            "runbooks/nothing-stored.md",
        ),
        Query(newest("outhaul_unexpected_failures", "process"), "{{process}} {{source}}"),
        unit="short",
        bars=True,
        size=Size(12, 8),
    )
