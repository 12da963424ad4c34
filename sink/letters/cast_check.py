"""Texts of one row, types of their columns -> nothing, or the first text that ClickHouse would store as something else.

Edge: ClickHouse, which is asked what it makes of each text before the row is inserted. All of this it does without a
word: a number that does not fit wraps, digits beyond a Decimal's are cut off, and a text that cannot be read is NULL in
a column that may have NULL. Times and floats never travel as texts (sink/letters/restore.py).

Source: https://clickhouse.com/docs/sql-reference/functions/type-conversion-functions#cast
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from outhaul.sink.errors import PoisonError
from outhaul.sink.sql import literal
from outhaul.sink.timestamps import bare

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outhaul.sink.clickhouse import ClickHouse

_NUMBER = re.compile(r"U?Int\d+|Decimal")
# What a text is read into, and what is made of it can be looked at as a text again.
_ASKED = re.compile(r"U?Int\d+|Decimal|Bool|UUID|IPv[46]|Enum")


def check(clickhouse: ClickHouse, texts: Mapping[str, str], types: Mapping[str, str]) -> None:
    """Ask what becomes of the texts, by column.

    Args:
        clickhouse: where the row goes.
        texts: values as Postgres prints them, none of them NULL.
        types: ClickHouse types of at least these columns.

    Raises:
        PoisonError: one of them would be changed or dropped, or ClickHouse cannot read it.
        PipelineError: ClickHouse does not answer.
    """
    asked = [name for name in texts if _ASKED.match(bare(types[name]))]
    if not asked:
        return
    for name in asked:
        if not _is_unicode(texts[name]):
            raise _changed(name, texts[name], types[name], "an error")
    made = ", ".join(f"toString(CAST({literal(texts[name])}, {literal(types[name])}))" for name in asked)
    for name, stored in zip(asked, clickhouse.rows(f"SELECT {made}")[0], strict=True):
        if stored is None or (_NUMBER.match(bare(types[name])) and not _is_same(texts[name], stored)):
            raise _changed(name, texts[name], types[name], "NULL" if stored is None else stored)


def _is_same(text: str, stored: str) -> bool:
    try:
        return Decimal(text) == Decimal(stored)
    except InvalidOperation:
        return False


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _changed(name: str, text: str, kind: str, stored: str) -> PoisonError:
    return PoisonError(f"{name}: {ascii(text) if not _is_unicode(text) else text} in {kind} would be {stored}")
