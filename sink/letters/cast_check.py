"""Texts of one row, types of their columns -> nothing, or an error for a text that ClickHouse would store changed.

Edge: ClickHouse. Before the row is inserted, ClickHouse casts each text, and `check` compares the result. A cast can
change a value without an error: a number that does not fit wraps around, digits beyond a Decimal's scale are cut off,
and an unreadable text becomes NULL in a Nullable column. Times and floats are not sent as text
(sink/letters/restore.py).

Source: https://clickhouse.com/docs/sql-reference/functions/type-conversion-functions#cast
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from outhaul.sink.errors import PoisonError
from outhaul.sink.quoting import clickhouse_literal
from outhaul.sink.timestamps import bare

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outhaul.sink.clickhouse import ClickHouse

_NUMBER = re.compile(r"U?Int\d+|Decimal")
# Types that ClickHouse reads from text, and whose values it can print as text again.
_CHECKED = re.compile(r"U?Int\d+|Decimal|Bool|UUID|IPv[46]|Enum")


def check(clickhouse: ClickHouse, texts: Mapping[str, str], types: Mapping[str, str]) -> None:
    """Check that ClickHouse would store each text unchanged.

    Args:
        clickhouse: the server that the row is for.
        texts: values by column, as Postgres prints them, without NULLs.
        types: ClickHouse types of at least these columns.

    Raises:
        PoisonError: ClickHouse would change or drop a value, or cannot read it.
        PipelineError: ClickHouse does not answer.
    """
    checked = [name for name in texts if _CHECKED.match(bare(types[name]))]
    if not checked:
        return
    for name in checked:
        if not _is_unicode(texts[name]):
            raise _changed(name, texts[name], types[name], "an error")
    casts = ", ".join(
        f"toString(CAST({clickhouse_literal(texts[name])}, {clickhouse_literal(types[name])}))" for name in checked
    )
    for name, stored in zip(checked, clickhouse.rows(f"SELECT {casts}")[0], strict=True):
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
