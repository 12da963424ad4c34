"""`--table` and `--shard`, settings -> the outboxes, or the stream, that a command is for.

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
    str, typer.Option("--table", help="Only this outbox, if several are captured.", metavar="SCHEMA.TABLE")
]
One = Annotated[str, typer.Option("--table", help="Which outbox, if several are captured.", metavar="SCHEMA.TABLE")]

Shard = Annotated[int | None, typer.Option(min=0, max=MAX_SHARDS - 1, help="Which shard, if the stream has several.")]


def each(settings: Settings, name: str) -> tuple[Settings, ...]:
    """Return the settings for the outbox that is named, or for each outbox if `name` is empty.

    Raises:
        FatalError: no captured outbox has that name.
    """
    branches = settings.branches()
    found = tuple(branch for branch in branches if name in {"", branch.table})
    if not found:
        raise FatalError(f"{name!r} is not captured", todo=_tables_to_pass(settings), exit_code=Exit.USAGE)
    return found


def one(settings: Settings, name: str) -> Settings:
    """Return the settings for the outbox that is named, or for the only one.

    Raises:
        FatalError: no captured outbox has that name, or several are captured and `name` is empty.
    """
    found = each(settings, name)
    if len(found) > 1:
        raise FatalError("several outboxes are captured", todo=_tables_to_pass(settings), exit_code=Exit.USAGE)
    return found[0]


def _tables_to_pass(settings: Settings) -> str:
    return f"Pass --table {' or --table '.join(branch.table for branch in settings.branches())}"


def stream(settings: Settings, shard: int | None) -> Settings:
    """Return the settings for one shard, or for the stream if it is not divided.

    Raises:
        FatalError: the shard does not exist, or there are several and `shard` is None.
    """
    if settings.shards == 1 and not shard:
        return settings
    if shard is None or shard >= settings.shards:
        raise FatalError(
            f"the stream has {settings.shards} shards",
            todo=f"Pass one of --shard 0 to --shard {settings.shards - 1}"
            if settings.shards > 1
            else "Leave out --shard",
            exit_code=Exit.USAGE,
        )
    return settings.stream(shard)
