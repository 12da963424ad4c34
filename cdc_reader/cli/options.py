"""`--table` and `--shard`, settings -> the outboxes that a command is for, or the stream.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.settings import MAX_SHARDS

if TYPE_CHECKING:
    from outhaul.sink.settings import Settings

EachOrOne = Annotated[
    str, typer.Option("--table", help="One outbox alone, where several are captured.", metavar="SCHEMA.TABLE")
]
One = Annotated[str, typer.Option("--table", help="Which outbox, where several are captured.", metavar="SCHEMA.TABLE")]

Shard = Annotated[
    int | None, typer.Option(min=0, max=MAX_SHARDS - 1, help="Which shard of the stream, where there are several.")
]


def each(settings: Settings, name: str) -> tuple[Settings, ...]:
    """Return the settings for the outbox that is named; for all of them, one after the other, where none is.

    Raises:
        FatalError: there is none of that name.
    """
    branches = settings.branches()
    found = tuple(branch for branch in branches if name in {"", branch.table})
    if not found:
        raise FatalError(f"{name!r} is not captured", todo=_say(settings), exit_code=Exit.USAGE)
    return found


def one(settings: Settings, name: str) -> Settings:
    """Return the settings for the outbox that is named, or for the only one.

    Raises:
        FatalError: there is none of that name, or several and none is named.
    """
    found = each(settings, name)
    if len(found) > 1:
        raise FatalError("several outboxes are captured", todo=_say(settings), exit_code=Exit.USAGE)
    return found[0]


def _say(settings: Settings) -> str:
    return f"Say --table {' or --table '.join(branch.table for branch in settings.branches())}"


def stream(settings: Settings, shard: int | None) -> Settings:
    """Return the settings for one shard, or for the one stream that there is.

    Raises:
        FatalError: there is no such shard, or several and none is named.
    """
    if settings.shards == 1 and not shard:
        return settings
    if shard is None or shard >= settings.shards:
        raise FatalError(
            f"the stream has {settings.shards} shards",
            todo=f"Say which: --shard 0 to --shard {settings.shards - 1}"
            if settings.shards > 1
            else "Leave out --shard",
            exit_code=Exit.USAGE,
        )
    return settings.stream(shard)
