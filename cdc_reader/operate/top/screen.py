"""A view -> one screen, laid out for 80 columns and 24 lines or more.

Pure. An old figure has its age beside it. Figures come first, problems last. On a small terminal past problems are
left out first, then messages become shorter, then the last figures are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from outhaul.cdc_reader.operate.status.units import kept, milliseconds, paused, phase_then
from outhaul.sink.quantities import duration_text, size_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from outhaul.cdc_reader.operate.status.ask import ClickHouseState, PostgresState, RedisState
    from outhaul.cdc_reader.operate.top.polling import Latest
    from outhaul.cdc_reader.operate.top.problem_history import Problem
    from outhaul.cdc_reader.operate.top.rates import Rate
    from outhaul.cdc_reader.session.reader_state import ReaderState
    from outhaul.cdc_reader.slots.retained_wal import Slot

_MORE = "…"
_BARS = " ▁▂▃▄▅▆▇█"
_LABEL_COLUMNS = 12
_RATE_COLUMNS = 12
_TITLE_LINES = 2
# Lines that are kept for problems, however small the terminal is.
_WRONG_LINES = 4
# An answer's age is shown if the next one is this late, in seconds.
OLD_S = 3.0
# Shorter times are shown with tenths of a second.
_SHORT_S = 60.0


@dataclass(frozen=True, slots=True)
class View:
    """All that a screen shows; `now` is the time of day, `at` the monotonic time, both in seconds."""

    source: str
    now: float
    at: float
    every_s: float
    postgres: Latest[PostgresState]
    redis: Latest[RedisState]
    clickhouse: Latest[ClickHouseState]
    # With its growth.
    slot: Slot | None
    history: Sequence[Rate]
    wrong: Sequence[Problem]
    before: Sequence[Problem]


def screen(view: View) -> RenderableType:
    """Lay out a view for the terminal that it is drawn on."""
    return _Screen(view)


@dataclass(frozen=True, slots=True)
class _Screen:
    view: View

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.size
        figures = Table.grid(padding=(0, 1), pad_edge=False)
        figures.add_column(style="bold", no_wrap=True, min_width=_LABEL_COLUMNS)
        figures.add_column(overflow="fold")
        for label, text, latest in _rows(self.view, width):
            figures.add_row(label, Text.assemble(text, _age(self.view, latest)))
        rows = console.render_lines(figures, options.update(height=None), pad=False)
        wrong = [_entry(problem, f"since {_clock(problem.since)}") for problem in self.view.wrong]
        before = [
            _entry(problem, f"{_clock(problem.since)} to {_clock(problem.until)}", "dim")
            for problem in self.view.before
        ]
        columns = width - _LABEL_COLUMNS - 1
        # Problems have room on the smallest terminal; the figures above are in order of importance.
        least = min(len(wrong), _WRONG_LINES)
        rows = rows[: max(1, height - _TITLE_LINES - (least + 1 if least else 0))]
        left = height - _TITLE_LINES - len(rows)
        yield _title(self.view, width)
        yield Text()
        for row in rows:
            yield Segments([*row, Segment.line()])
        for label, style, messages in (("wrong", "bold red", wrong), ("before", "bold dim", before)):
            lines = _wrapped(console, messages, columns, left - 1)
            if lines:
                yield Text()
                yield from _labelled(label, style, lines)
                left -= len(lines) + 1


def _entry(problem: Problem, when: str, style: str = "") -> Text:
    return Text.assemble((f"{when}  ", "dim"), (problem.text, style))


def _labelled(label: str, style: str, lines: Iterable[Text]) -> Iterable[Text]:
    for line in lines:
        yield Text.assemble((f"{label:<{_LABEL_COLUMNS}} ", style), line)
        label = ""  # only beside the first of its lines


def _wrapped(console: Console, messages: Sequence[Text], columns: int, lines: int) -> list[Text]:
    """Wrap messages to this many columns and lines in all: all become shorter before any is left out."""
    if not messages or lines <= 0:
        return []
    whole = [list(message.wrap(console, max(1, columns))) for message in messages]
    for each in range(max(map(len, whole)), 0, -1):
        if sum(min(each, len(one)) for one in whole) <= lines:
            return [line for one in whole for line in _cut(one, each, columns)]
    left_out = Text(f"{_MORE} and {len(whole) - lines + 1} more", "dim")
    return [*(line for one in whole[: lines - 1] for line in _cut(one, 1, columns)), left_out]


def _cut(lines: list[Text], most: int, columns: int) -> list[Text]:
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    last.rstrip()
    last.truncate(columns - len(_MORE))
    return [*lines[: most - 1], last.append(_MORE)]


def is_old(view: View, latest: Latest[object]) -> bool:
    """Tell whether an answer is late; an answer that never came is measured from the first poll on."""
    since = latest.asked_at if latest.answered_at is None else latest.answered_at
    return since is not None and view.at - since > OLD_S + latest.next_within_s


def _title(view: View, width: int) -> Text:
    left = Text.assemble(("outhaul ", "bold"), view.source, "  ", _verdict(view))
    right = f"{_clock(view.now)} UTC, every {view.every_s:g} s, q quits"
    return Text.assemble(left, " " * max(2, width - left.cell_len - len(right)), (right, "dim"))


def _verdict(view: View) -> Text:
    if view.wrong:
        return Text(f"{len(view.wrong)} wrong", "bold white on red")
    if any(one.answered_at is None for one in (view.postgres, view.redis, view.clickhouse)):
        # Not "fine": not every server has answered yet.
        return Text("asking", "bold yellow")
    return Text("fine", "bold green")


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
    # A rate above 0 is always visible.
    return _BARS[0] if rate <= 0 else _BARS[max(1, round(rate / top * (len(_BARS) - 1)))]


def _behind(reader: ReaderState | None, slot: Slot | None) -> str:
    seconds = _seconds(reader.lag_s) if reader else "-"
    return f"{seconds}, {size_text(slot.behind_bytes)} of WAL" if slot else seconds


def _seconds(lag_s: float) -> str:
    return duration_text(lag_s) if lag_s >= _SHORT_S else f"{lag_s:.1f} s"


def _latency(reader: ReaderState | None) -> str:
    if reader is None:
        return "-"
    return f"p50 {milliseconds(reader.p50_ms)}, p99 {milliseconds(reader.p99_ms)} from commit to stored"


def _in_flight(reader: ReaderState | None) -> str:
    if reader is None:
        return "-"
    return f"{reader.in_flight_batches} batches, {reader.in_flight_rows:,} rows, {size_text(reader.in_flight_bytes)}"


def _reader(view: View, reader: ReaderState | None) -> str:
    if reader is None:
        return (view.redis.value.reconnecting or "no reader reports") if view.redis.value else "-"
    phase = phase_then(reader.phase, view.redis.value.reader_age_s if view.redis.value else None)
    return f"{phase}, epoch {reader.epoch}, process {reader.pid} on {reader.host}, at {reader.confirmed_lsn}"


def _slot(view: View) -> str:
    if view.postgres.value is None:
        return "-"
    slot = view.slot
    if slot is None:
        return "does not exist"
    state = "active" if slot.active else "inactive"
    since = f" for {duration_text(slot.inactive_s)}" if slot.inactive_s else ""
    return f"{state}{since}, {slot.wal_status}, confirmed {slot.confirmed_lsn}"


def _stored(view: View) -> str:
    found = view.clickhouse.value
    if found is None:
        return "-"
    ago = "never" if found.last_stored_at is None else f"{duration_text(max(0, view.now - found.last_stored_at))} ago"
    letters = f"{found.dead_letters:,} dead letters"
    return f"{found.rows:,} rows, {found.parts} parts, {size_text(found.bytes_on_disk)}, {letters}, last {ago}"


def _age(view: View, latest: Latest[object]) -> Text:
    if latest.answered_at is None or not is_old(view, latest):
        return Text()
    return Text(f"  ({duration_text(view.at - latest.answered_at)} old)", "yellow")


def _clock(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%H:%M:%S}"
