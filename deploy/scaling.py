"""Measured figures in docs/scaling.md -> the table of costs for each rate of events in the same page.

Pure, except for the last lines: `python -m outhaul.deploy.scaling` writes the table. If you measure other figures, edit
them in the page, and run it again.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scaling.md"
RATES = (1_000, 100_000, 1_000_000)

_BEGIN, _END = "<!-- made by: python -m outhaul.deploy.scaling -->\n", "<!-- made until here -->\n"
_FIGURE = re.compile(r"^\| `(\w+)` \| ([\d,.]+) \|", re.MULTILINE)
_YEAR_S = 365 * 86_400
_HOUR_S = 3600
_DAY_S = 86_400
# The highest planned load of a process; the rest is for catching up after an outage.
_BUSY = 0.7


@dataclass(frozen=True, slots=True)
class Figures:
    """Measured figures: `…_cpu_s` in CPU seconds for a million events, `…_cores` in cores at 100 events a second."""

    postgres_cpu_s: float
    decoding_cpu_s: float
    reader_cpu_s: float
    worker_cpu_s: float
    redis_cpu_s: float
    clickhouse_cpu_s: float
    reader_cores: float
    worker_cores: float
    clickhouse_cores: float
    reader_rows_s: float
    batch_rows: float
    batches_s: float
    in_flight_mib: float
    wal_bytes: float
    outbox_bytes: float
    payload_bytes: float
    stored_bytes: float

    @classmethod
    def of(cls, page: str) -> Figures:
        """Read the figures of the page.

        Raises:
            KeyError: a figure is missing in the page.
        """
        found = {name: float(value.replace(",", "")) for name, value in _FIGURE.findall(page)}
        return cls(**{field.name: found[field.name] for field in fields(cls)})


def primary_rows_s(figures: Figures, slots: int) -> float:
    """Return how many events a second one primary can send to `slots` slots with equal shares.

    For each slot, one process of Postgres, so one core, decodes the events of all slots.
    """
    sending = (figures.postgres_cpu_s - figures.decoding_cpu_s) / slots
    by_walsender = 1_000_000 / (figures.decoding_cpu_s + sending)
    return _BUSY * min(by_walsender, slots * figures.reader_rows_s)


def primaries(figures: Figures, rate: float, slots: int) -> int:
    """Return how many primaries a rate of events a second needs."""
    return math.ceil(rate / primary_rows_s(figures, slots))


def table(figures: Figures) -> str:
    """Return the table of all rates, as Markdown."""
    columns = [_column(figures, rate) for rate in RATES]
    head = ["events a second", *(f"{rate:,}" for rate in RATES)]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] + ["---:"] * len(RATES), *rows])


def _column(figures: Figures, rate: int) -> dict[str, str]:
    pipelines = primaries(figures, rate, 1)
    million_s = rate / 1_000_000
    inserts_s = max(figures.batches_s * pipelines, rate / figures.batch_rows)
    return {
        "events a year": f"{rate * _YEAR_S / 1e9:,.0f} billion",
        "Postgres primaries, of one slot each": f"{pipelines}",
        "the same, if each had two slots": f"{primaries(figures, rate, 2)}",
        "cores: walsenders": _cores(figures.postgres_cpu_s * million_s),
        "cores: readers": _cores(figures.reader_cores * pipelines + figures.reader_cpu_s * million_s),
        "cores: workers": _cores(figures.worker_cores * pipelines + figures.worker_cpu_s * million_s),
        "cores: Redis": _cores(figures.redis_cpu_s * million_s),
        "cores: ClickHouse": _cores(figures.clickhouse_cores * pipelines + figures.clickhouse_cpu_s * million_s),
        "WAL": f"{_size(rate * figures.wal_bytes)}/s",
        "WAL kept for each hour without ClickHouse": _size(rate * figures.wal_bytes * _HOUR_S),
        "outbox, for each day that it keeps": _size(rate * figures.outbox_bytes * _DAY_S),
        "Redis, in and out, each": f"{_size(rate * figures.payload_bytes)}/s",
        "Redis memory for payloads, at most": _size(figures.in_flight_mib * 2**20 * pipelines),
        "inserts a second": f"{inserts_s:,.1f}",
        "ClickHouse, a year on disk, one copy": _size(rate * figures.stored_bytes * _YEAR_S),
    }


def _cores(cores: float) -> str:
    return f"{cores:.2f}" if cores < 1 else f"{cores:.1f}"


def _size(size_bytes: float) -> str:
    """Return a size with at most three significant digits, in decimal units, as for networks and disks."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size_bytes < 1000:  # noqa: PLR2004 - the factor between units
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3g} PB"


def with_table(page: str) -> str:
    """Return the page with a new table, computed from its figures."""
    head, _, rest = page.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    return f"{head}{_BEGIN}\n{table(Figures.of(page))}\n{_END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
    sys.stdout.write(f"{PAGE}\n")
