"""What is known -> one screen, good at 80 columns and 24 lines, better on a larger one.

Pure. What was not heard for a while says how old it is. The figures come first and troubles last, so that a small
terminal cuts the oldest of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cdc_reader.slot_care.retained import duration, size
from cdc_reader.words import kept, milliseconds, paused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cdc_reader.answers import OfClickHouse, OfPostgres, OfRedis
    from cdc_reader.slot_care.retained import Slot
    from cdc_reader.state import ReaderState
    from cdc_reader.top.ask import Latest
    from cdc_reader.top.rates import Rate
    from cdc_reader.top.troubles import Trouble

_BARS = " ▁▂▃▄▅▆▇█"
_LABEL_COLUMNS = 12
_RATE_COLUMNS = 12
# So much older than the time between two questions, an answer's age is worth a word; in seconds.
OLD_S = 3.0
# Up to here tenths of a second are of interest.
_SHORT_S = 60.0


@dataclass(frozen=True, slots=True)
class View:
    """All that a screen shows; `now` is the clock, `at` the monotonic seconds that ages are counted to."""

    source: str
    now: float
    at: float
    every_s: float
    postgres: Latest[OfPostgres]
    redis: Latest[OfRedis]
    clickhouse: Latest[OfClickHouse]
    # With its growth.
    slot: Slot | None
    history: Sequence[Rate]
    wrong: Sequence[Trouble]
    before: Sequence[Trouble]


def screen(view: View, width: int) -> RenderableType:
    """Lay out a view for a terminal of so many columns."""
    figures = Table.grid(padding=(0, 1), pad_edge=False)
    figures.add_column(style="bold", no_wrap=True, min_width=_LABEL_COLUMNS)
    figures.add_column(overflow="fold")
    for label, text, latest in _rows(view, width):
        figures.add_row(label, Text.assemble(text, _age(view, latest)))
    return Group(_title(view, width), Text(), figures, Text(), *_troubles(view))


def is_old(view: View, latest: Latest[object]) -> bool:
    """Tell whether an answer is older than it should be."""
    return latest.answered_at is not None and view.at - latest.answered_at > OLD_S + view.every_s


def _title(view: View, width: int) -> Text:
    verdict = Text(f"{len(view.wrong)} wrong", "bold white on red") if view.wrong else Text("fine", "bold green")
    left = Text.assemble(("outhaul ", "bold"), view.source, "  ", verdict)
    right = f"{_clock(view.now)} UTC, every {view.every_s:g} s, q quits"
    return Text.assemble(left, " " * max(2, width - left.cell_len - len(right)), (right, "dim"))


def _rows(view: View, width: int) -> Iterable[tuple[str, Text, Latest[object]]]:
    reader = view.redis.value.reader if view.redis.value else None
    bars = max(10, width - _LABEL_COLUMNS - _RATE_COLUMNS - 3)
    captured, stored = ([getattr(rate, name) for rate in view.history] for name in ("captured", "stored"))
    yield "captured", _rate(captured, bars), view.redis
    yield "stored", _rate(stored, bars), view.redis
    yield "behind", Text(_behind(reader, view.slot)), view.redis
    yield "latency", Text(_latency(reader)), view.redis
    yield "in flight", Text(_in_flight(reader)), view.redis
    yield "reader", Text(_reader(view, reader)), view.redis
    yield "queue", Text(f"{view.redis.value.queue_length:,} messages" if view.redis.value else "-"), view.redis
    yield "slot", Text(_slot(view)), view.postgres
    if view.slot:
        yield "WAL kept", Text(kept(view.slot)), view.postgres
    yield "ClickHouse", Text(_stored(view)), view.clickhouse
    pause = view.clickhouse.value.pause if view.clickhouse.value else (reader.pause if reader else None)
    if pause:
        yield "paused", Text(paused(pause), "yellow"), view.clickhouse


def _rate(rates: list[float | None], columns: int) -> Text:
    now = rates[-1] if rates else None
    figure = "-" if now is None else f"{now:,.0f}/s"
    return Text.assemble(f"{figure:>{_RATE_COLUMNS - 2}}  ", (_sparkline(rates, columns), "cyan"))


def _sparkline(rates: list[float | None], columns: int) -> str:
    shown = rates[-columns:]
    top = max((rate for rate in shown if rate is not None), default=0.0)
    return "".join(_bar(rate, top) for rate in shown)


def _bar(rate: float | None, top: float) -> str:
    if rate is None or top <= 0:
        return _BARS[0]
    # What is not nothing is to be seen.
    return _BARS[0] if rate <= 0 else _BARS[max(1, round(rate / top * (len(_BARS) - 1)))]


def _behind(reader: ReaderState | None, slot: Slot | None) -> str:
    seconds = _seconds(reader.lag_s) if reader else "-"
    return f"{seconds}, {size(slot.behind_bytes)} of WAL" if slot else seconds


def _seconds(lag_s: float) -> str:
    return duration(lag_s) if lag_s >= _SHORT_S else f"{lag_s:.1f} s"


def _latency(reader: ReaderState | None) -> str:
    if reader is None:
        return "-"
    return f"p50 {milliseconds(reader.p50_ms)}, p99 {milliseconds(reader.p99_ms)} from commit to stored"


def _in_flight(reader: ReaderState | None) -> str:
    if reader is None:
        return "-"
    return f"{reader.in_flight_batches} batches, {reader.in_flight_rows:,} rows, {size(reader.in_flight_bytes)}"


def _reader(view: View, reader: ReaderState | None) -> str:
    if reader is None:
        return (view.redis.value.reconnecting or "none says anything") if view.redis.value else "-"
    return f"{reader.phase}, epoch {reader.epoch}, process {reader.pid} on {reader.host}, at {reader.confirmed_lsn}"


def _slot(view: View) -> str:
    if view.postgres.value is None:
        return "-"
    slot = view.slot
    if slot is None:
        return "does not exist"
    state = "active" if slot.active else "inactive"
    since = f" for {duration(slot.inactive_s)}" if slot.inactive_s else ""
    return f"{state}{since}, {slot.wal_status}, confirmed {slot.confirmed_lsn}"


def _stored(view: View) -> str:
    found = view.clickhouse.value
    if found is None:
        return "-"
    ago = "never" if found.last_stored_at is None else f"{duration(max(0, view.now - found.last_stored_at))} ago"
    letters = f"{found.dead_letters:,} dead letters"
    return f"{found.rows:,} rows, {found.parts} parts, {size(found.bytes_on_disk)}, {letters}, last {ago}"


def _age(view: View, latest: Latest[object]) -> Text:
    if latest.answered_at is None or not is_old(view, latest):
        return Text()
    return Text(f"  ({duration(view.at - latest.answered_at)} old)", "yellow")


def _troubles(view: View) -> Iterable[RenderableType]:
    for title, style, troubles in (("wrong", "red", view.wrong), ("before", "dim", view.before)):
        lines = Table.grid(padding=(0, 1), pad_edge=False)
        lines.add_column(style=f"bold {style}", no_wrap=True, min_width=_LABEL_COLUMNS)
        lines.add_column(overflow="fold", style="" if title == "wrong" else style)
        for trouble in troubles:
            clock = _clock(trouble.since)
            when = f"since {clock}" if title == "wrong" else f"{clock} to {_clock(trouble.until)}"
            lines.add_row(title, Text.assemble(trouble.text, (f"  ({when})", "dim")))
            title = ""  # noqa: PLW2901 - said once, above its lines
        if troubles:
            yield lines


def _clock(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%H:%M:%S}"
