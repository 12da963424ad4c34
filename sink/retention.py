"""Event table -> the rule by which ClickHouse removes old events, and the time before which it may have removed them.

Edge: ClickHouse. A TTL is an expression over the columns of a row. If it depends on the event's time alone, the server
says how long it keeps an event of this moment.

Source: https://clickhouse.com/docs/engines/table-engines/mergetree-family/mergetree#table_engine-mergetree-ttl
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from outhaul.sink.errors import PipelineError, TransientError
from outhaul.sink.schema import tables
from outhaul.sink.sql import query

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.sink.clickhouse import ClickHouse

_TTL = re.compile(r"\bTTL (.*?)(?: SETTINGS |$)", re.DOTALL)
_STAYS = re.compile(r"\b(TO (DISK|VOLUME)|RECOMPRESS)\b")
_PARTLY = re.compile(r"\b(WHERE|GROUP BY)\b")
# A comparison of both sides takes time, and a row may expire meanwhile.
_MARGIN_S = 3600.0


@dataclass(frozen=True, slots=True)
class Retention:
    """The TTL of an event table: its text, and the time before which events may be gone; None if that is not known."""

    rule: str
    before: datetime | None


def retention_of(clickhouse: ClickHouse, table: str) -> Retention | None:
    """Return the retention of an event table; None if ClickHouse keeps all of its events.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    found = tables(clickhouse, [table]).get(table)
    rules = removing(found.definition) if found else []
    if not rules:
        return None
    kept = [_kept_s(clickhouse, rule) for rule in rules]
    known = [seconds for seconds in kept if seconds is not None]
    if len(known) < len(kept):
        return Retention(", ".join(rules), None)
    margin_s = min(_MARGIN_S, min(known) / 2)
    return Retention(", ".join(rules), datetime.now(UTC) - timedelta(seconds=min(known) - margin_s))


def removing(definition: str) -> list[str]:
    """Return those rules of a table's TTL that remove rows."""
    found = _TTL.search(definition)
    return [rule for rule in _parts(found[1]) if not _STAYS.search(rule)] if found else []


def _parts(text: str) -> Iterator[str]:
    """Yield what commas outside of brackets separate."""
    depth, begin = 0, 0
    for at, one in enumerate(text):
        depth += (one == "(") - (one == ")")
        if one == "," and not depth:
            yield text[begin:at].strip()
            begin = at + 1
    yield text[begin:].strip()


def _kept_s(clickhouse: ClickHouse, rule: str) -> float | None:
    """Return how long a rule keeps an event of this moment, in seconds; None if that depends on more than its time."""
    if _PARTLY.search(rule):
        return None
    try:
        return float(clickhouse.rows(query("ttl_keeps", expiry=rule.removesuffix(" DELETE")))[0][0])
    except PipelineError as error:
        if error.code is None or isinstance(error, TransientError):
            raise
        return None
