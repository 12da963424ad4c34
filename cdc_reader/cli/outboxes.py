"""`--table`, settings -> the outboxes that a command is for.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sink.errors import Exit, FatalError

if TYPE_CHECKING:
    from sink.settings import Settings

EachOrOne = Annotated[
    str, typer.Option("--table", help="One outbox alone, where several are captured.", metavar="SCHEMA.TABLE")
]
One = Annotated[str, typer.Option("--table", help="Which outbox, where several are captured.", metavar="SCHEMA.TABLE")]


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
