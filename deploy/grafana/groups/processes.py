"""What do our processes use? -> memory, processor, versions, and the exporter's own work.

Pure. The client library's `process_*` have no source: they are joined with `outhaul_build_info` of the same scrape.
"""

from __future__ import annotations

from deploy.grafana.layout import Group
from deploy.grafana.panel import About, Json, Query, Size, lines, table
from deploy.grafana.promql import newest, of, times

_QUARTER = Size(6, 8)


def processes() -> Group:
    """Return the group."""
    return Group("Our processes", (_memory(), _cpu(), _versions(), _looks(), _failures()))


def _of_process(expr: str) -> str:
    return f"{expr} * on (job, instance) group_left (source, process) {of('outhaul_build_info')}"


def _memory() -> Json:
    return lines(
        "Memory",
        About(
            "100 to 250 MB each, whatever the backlog; of a worker only its watchdog, about 100 MB.",
            "a climb over days is a leak: keep the log, restart it (`kill -9` is safe), report it.",
            "performance.md",
        ),
        Query(_of_process("process_resident_memory_bytes"), "{{process}} {{instance}}"),
        unit="bytes",
        size=_QUARTER,
    )


def _cpu() -> Json:
    return lines(
        "Processor",
        About(
            "1 % of a core at rest; of a worker only its watchdog.",
            "100 %: that process is the bound. More workers help where it is theirs.",
            "performance.md",
        ),
        Query(_of_process("rate(process_cpu_seconds_total[$__rate_interval])"), "{{process}} {{instance}}"),
        unit="percentunit",
        size=_QUARTER,
    )


def _versions() -> Json:
    return table(
        "Which versions run?",
        About(
            "one version everywhere.",
            "readers and workers of two versions may not understand each other: run the same on all.",
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


def _looks() -> Json:
    return lines(
        "How long does the exporter look?",
        About(
            "milliseconds for each server; *celery* waits a second for answers, an audit may take seconds.",
            "that server is slow to answer.",
            "runbooks/README.md",
        ),
        Query(newest("outhaul_exporter_look_seconds", "server"), "{{server}} {{source}}"),
        unit="s",
        size=Size(12, 8),
    )


def _failures() -> Json:
    return lines(
        "Looks that failed",
        About(
            "none.",
            "that server did not answer, or refused: the exporter's log says what.",
            "runbooks/README.md",
        ),
        Query(times("outhaul_exporter_failures_total", "server", process="exporter"), "{{server}} {{source}}"),
        unit="short",
        bars=True,
        size=Size(12, 8),
    )
