"""Figures -> printed tables and counts, and a progress bar.

Edge: the terminal. Facts go to standard output; the bar goes to standard error, so that a pipe does not contain it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from outhaul.cdc_reader.outbox.compare import Compared

_SHOWN = 10


def facts(rows: list[tuple[str, str]]) -> None:
    """Print names and values, one pair per line."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in rows:
        table.add_row(name, value)
    Console().print(table)


def some(ids: list[int], count: int) -> str:
    """Return a count and the first few ids as text."""
    shown = ", ".join(str(one) for one in ids[:_SHOWN])
    return f"{count:,}" + (f": {shown}{', …' if count > _SHOWN else ''}" if count else "")


@contextmanager
def range_bar(text: str) -> Iterator[Callable[[Compared, int], None]]:
    """Show a bar over ids; yield a function that takes each compared range, and the last id of the outbox."""
    columns: list[Any] = [
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(text, total=None, note="")
        begun: list[int] = []
        rows = 0

        def show(found: Compared, last: int) -> None:
            nonlocal rows
            if not begun:
                begun.append(found.first)
            rows += found.rows
            progress.update(
                bar,
                total=max(1, last - begun[0]),
                completed=found.last - begun[0],
                note=f"{rows:,} rows, id {found.last}",
            )

        yield show
