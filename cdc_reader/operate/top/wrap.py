"""Messages and so many lines -> lines of text; none is lost without a word.

Pure. Where there is room, each message is whole. Where there is not, all become shorter before any is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

_MORE = "…"


def fit(console: Console, messages: Sequence[Text], columns: int, lines: int) -> list[Text]:
    """Wrap messages to so many columns, and cut them to so many lines in all."""
    if not messages or lines <= 0:
        return []
    wrapped = [list(message.wrap(console, max(1, columns))) for message in messages]
    for each in range(max(map(len, wrapped)), 0, -1):
        if sum(min(each, len(one)) for one in wrapped) <= lines:
            return [line for one in wrapped for line in _cut(one, each, columns)]
    left_out = Text(f"{_MORE} and {len(wrapped) - lines + 1} more", "dim")
    return [*(line for one in wrapped[: lines - 1] for line in _cut(one, 1, columns)), left_out]


def _cut(lines: list[Text], most: int, columns: int) -> list[Text]:
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    last.rstrip()
    last.truncate(columns - len(_MORE))
    return [*lines[: most - 1], last.append(_MORE)]
