"""Figures of one run, and perhaps of an older one -> tables for people.

Pure but for the printing. Figures are a tree; its numbers are compared by their paths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from tests.benchmarks.measure import Figures

# What differs by less is noise on any machine.
_MOVED = 0.05
_NOT_COMPARED = ("machine", "versions", "settings", "options")


def show(figures: Figures, console: Console) -> None:
    """Print all figures."""
    console.print(_throughput(figures))
    console.print(_cost(figures))
    console.print(_latency(figures))
    idle = figures["idle"]
    console.print(
        f"idle: reader and worker use {idle['outhaul_cpu_percent']} % of a core together, "
        f"{idle['redis_commands_per_s']} Redis commands a second\n"
    )
    console.print(_polling(figures))
    if "growth" in figures:
        console.print(_growth(figures))


def moved(old: Figures, new: Figures) -> Table:
    """Compare every number that both runs have; list those that differ by more than noise."""
    table = Table("figure", "old", "new", "new / old", title="What moved")
    before, after = dict(_numbers(old)), dict(_numbers(new))
    for path in sorted(before.keys() & after.keys()):
        was, now = before[path], after[path]
        if was and abs(now / was - 1) > _MOVED:
            table.add_row(path, f"{was:,.6g}", f"{now:,.6g}", f"{now / was:.2f}")
    return table


def _numbers(figures: Any, path: str = "") -> Iterator[tuple[str, float]]:
    match figures:
        case dict():
            for name, value in figures.items():
                if path or name not in _NOT_COMPARED:
                    yield from _numbers(value, f"{path}.{name}".lstrip("."))
        case int() | float() if not isinstance(figures, bool):
            yield path, float(figures)


def _throughput(figures: Figures) -> Table:
    rows = figures["options"]["rows"]
    table = Table("", "rows/s", "from–to", "× pg_recvlogical", title=f"A backlog of {rows:,} rows of about 330 bytes")
    for name, one in figures["pg_recvlogical_rows_per_s"].items():
        table.add_row(f"pg_recvlogical, {name.replace('_', ', ')}", *_spread(one), "1" if name == "binary_tcp" else "")
    for name in ("capture", "end_to_end"):
        ratio = figures["ratios"][name]
        table.add_row(name.replace("_", " "), *_spread(figures[name]["rows_per_s"]), f"{ratio['median']:.2f}")
    return table


def _spread(one: dict[str, float]) -> tuple[str, str]:
    return f"{one['median']:,.0f}", f"{one['min']:,.0f}–{one['max']:,.0f}"


def _cost(figures: Figures) -> Table:
    table = Table("", "capture, CPU s", "end to end, CPU s", "peak MB", title="Per million rows, by process")
    ours, whole = figures["capture"]["cpu_s_per_million_rows"], figures["end_to_end"]["cpu_s_per_million_rows"]
    for name, seconds in whole.items():
        alone = f"{ours[name]['median']:.2f}" if name in ours else ""
        table.add_row(name, alone, f"{seconds['median']:.2f}", f"{figures['end_to_end']['peak_rss_mb'][name]:.0f}")
    return table


def _latency(figures: Figures) -> Table:
    columns = ("events/s", "commit", "p50", "p95", "p99", "max", "parts/s")
    table = Table(*columns, title="Commit to visible, ms, single-row transactions")
    for one in figures["latency"].values():
        times = (f"{one[name]:.0f}" for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms"))
        rate, parts = f"{one['written_per_s']:,.0f}", f"{one['new_parts_per_s']:.1f}"
        table.add_row(rate, one["synchronous_commit"], *times, parts)
    return table


def _polling(figures: Figures) -> Table:
    table = Table("polling", "rows a batch", "rows/s", "WAL bytes/event", "dead rows/event", title="The polling design")
    for kind, sizes in figures["polling"].items():
        for one in sizes.values():
            wal, dead = f"{one['wal_bytes_per_event']:.0f}", f"{one['dead_tuples_per_event']:.1f}"
            table.add_row(kind, f"{one['rows_a_batch']:,}", f"{one['rows_per_s']:,.0f}", wal, dead)
        table.add_row("", "", f"outhaul: × {figures['ratios']['polling'][kind]}", "0", "0")
    return table


def _growth(figures: Figures) -> Table:
    table = Table("varied", "", "rows/s", "× pg_recvlogical", "reader, peak MB", title="Growth")
    for name, cases in figures["growth"].items():
        for value, one in cases.items():
            rates = (f"{one['rows_per_s']:,}", f"{one['ratio']:.2f}", f"{one['reader_peak_rss_mb']:.0f}")
            table.add_row(name.replace("_", " "), f"{int(value):,}", *rates)
    return table
