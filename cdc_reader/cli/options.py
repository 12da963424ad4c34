"""Options that several commands have -> what they name: outboxes, a stream, a duration, a moment.

Pure. Durations and moments are read alike by all commands (sink/quantities.py).
"""

from __future__ import annotations

import math
import shlex
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from outhaul.sink import quantities
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.quoting import join_name, split_name
from outhaul.sink.settings import MAX_SHARDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.sink.settings import Outbox, Settings, Stream

T = TypeVar("T")

EachOrOne = Annotated[
    str, typer.Option("--table", help="Only this outbox, if several are captured.", metavar="SCHEMA.TABLE")
]
One = Annotated[str, typer.Option("--table", help="Which outbox, if several are captured.", metavar="SCHEMA.TABLE")]

Shard = Annotated[int | None, typer.Option(min=0, max=MAX_SHARDS - 1, help="Which shard, if the stream has several.")]


def duration(least_s: float = 0.0, most_s: float = math.inf) -> Callable[[str | float], float]:
    """Return the parser of an option that takes a duration between two bounds; it returns seconds."""

    def parse(value: str | float) -> float:
        found = _parse(quantities.seconds, value)
        if not least_s <= found <= most_s:
            bounds = f"at least {quantities.spelled_s(least_s)}"
            if most_s < math.inf:
                bounds += f" and at most {quantities.spelled_s(most_s)}"
            raise typer.BadParameter(f"{value!r} is out of range: write {bounds}")
        return found

    return parse


def age(value: str | float) -> float:
    """Parse an option that takes an age with its unit; return seconds."""
    return _parse(quantities.age, value)


def moment(value: str | datetime) -> datetime:
    """Parse an option that takes a time or an age."""
    return _parse(lambda text: quantities.moment(text, datetime.now(UTC)), value)


def _parse(read: Callable[[str], T], value: str | T) -> T:
    if not isinstance(value, str):
        return value
    try:
        return read(value)
    except ValueError as error:
        # click puts the option's name before the message.
        raise typer.BadParameter(str(error)) from None


Since = Annotated[
    datetime | None,
    typer.Option(parser=moment, metavar="TIME", help="Events from this time on: 2026-01-31T12:00 (UTC), or 2h."),
]
Until = Annotated[datetime | None, typer.Option(parser=moment, metavar="TIME", help="Events before this time.")]
WaitS = Annotated[
    float,
    typer.Option(
        "--wait", parser=duration(), metavar="DURATION", help="Longest wait for the slot to pass all commits."
    ),
]


def each(settings: Settings, name: str) -> tuple[Outbox, ...]:
    """Return the outbox that is named, or each outbox if `name` is empty.

    Raises:
        FatalError: no captured outbox has that name.
    """
    with suppress(ValueError):
        name = join_name(*split_name(name))
    found = tuple(outbox for outbox in settings.outboxes() if name in {"", outbox.table})
    if not found:
        raise FatalError(f"{name!r} is not captured", todo=_tables_to_pass(settings), exit_code=Exit.USAGE)
    return found


def one(settings: Settings, name: str) -> Outbox:
    """Return the outbox that is named, or the only one.

    Raises:
        FatalError: no captured outbox has that name, or several are captured and `name` is empty.
    """
    found = each(settings, name)
    if len(found) > 1:
        raise FatalError("several outboxes are captured", todo=_tables_to_pass(settings), exit_code=Exit.USAGE)
    return found[0]


def _tables_to_pass(settings: Settings) -> str:
    return f"Pass --table {' or --table '.join(shlex.quote(outbox.table) for outbox in settings.outboxes())}"


def stream(settings: Settings, shard: int | None) -> Stream:
    """Return the stream of one shard, or the only one if the stream is not divided.

    Raises:
        FatalError: the shard does not exist, or there are several and `shard` is None.
    """
    if settings.shards == 1 and not shard:
        return settings.undivided
    if shard is None or shard >= settings.shards:
        raise FatalError(
            f"the stream has {settings.shards} shards",
            todo=f"Pass one of --shard 0 to --shard {settings.shards - 1}"
            if settings.shards > 1
            else "Leave out --shard",
            exit_code=Exit.USAGE,
        )
    return settings.stream(shard)
