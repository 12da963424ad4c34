"""Statement, settings -> the statement with its SETTINGS clause, and the settings that only the URL can carry.

Pure. Settings stand in the statement and not in the URL, so no proxy between outhaul and ClickHouse can take them away
without an error. The clause has another place in each kind of statement, and DDL has none.

Source: https://clickhouse.com/docs/sql-reference/statements/select#settings-in-select-query
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from outhaul.sink.pinned_settings import On, pinned
from outhaul.sink.quoting import clickhouse_literal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# A parameter of the HTTP interface, which every request carries.
_OF_THE_REQUEST = frozenset({"wait_end_of_query"})

_NAME = r"(?:`(?:[^`\\]|\\.)*+`|\w+)"
_COLUMNS = r"\((?:[^()`]|`(?:[^`\\]|\\.)*+`)*+\)"
_BLANK = re.compile(r"(?:\s+|--[^\n]*(?:\n|\Z))*")
_FIRST_WORD = re.compile(r"\w+|\(")
_INSERT = re.compile(
    rf"INSERT\s+INTO\s+(?:TABLE\s+)?(?:FUNCTION\s+)?{_NAME}(?:\s*\.\s*{_NAME})?\s*(?:{_COLUMNS}\s*){{0,2}}"
    r"(?P<clause>SETTINGS\s)?",
    re.IGNORECASE,
)
_SETTING = r"\w+\s*=\s*(?:'(?:[^'\\]|\\.)*+'|[\w+-]+(?:\.\w+)*)"
_OWN_CLAUSE = re.compile(rf"\bSETTINGS\s+(?P<settings>{_SETTING}(?:\s*,\s*{_SETTING})*)\Z", re.IGNORECASE)
# ClickHouse's messages quote statements, with all settings.
_QUOTED_CLAUSE = re.compile(rf"\s*\bSETTINGS\s+{_SETTING}(?:\s*,\s*{_SETTING}){{8,}}+", re.IGNORECASE)
_OWN_NAME = re.compile(r"(\w+)\s*=\s*(?:'(?:[^'\\]|\\.)*+'|[\w+-]+(?:\.\w+)*)")


def with_settings(statement: str, given: Mapping[str, object], known: Collection[str]) -> tuple[str, dict[str, object]]:
    """Return the statement with its settings, and those that it cannot hold, for the URL.

    Args:
        statement: the text; a clause of its own at the end of a SELECT or ALTER, or in an INSERT, stays.
        given: settings of this statement, which replace pinned ones.
        known: names of settings that the server has; others are left out.
    """
    text = statement.strip().rstrip(";").rstrip()
    start = _BLANK.match(text).end()  # type: ignore[union-attr] # the pattern matches the empty text
    first = _FIRST_WORD.match(text, start)
    match first.group().upper() if first else "":
        case "INSERT":
            return _in_insert(text, start, _known(pinned(On.INSERT, given), known)), {}
        case "SELECT" | "WITH" | "(":
            return _at_end(text, _known(pinned(On.READ, given), known)), {}
        case "ALTER":
            return _at_end(text, _known(given, known)), {}
        case _:
            return text, _known(given, known)


def without_clauses(message: str) -> str:
    """Return a message of ClickHouse without the long SETTINGS clauses in the statements that it quotes."""
    return _QUOTED_CLAUSE.sub("", message)


def _known(settings: Mapping[str, object], known: Collection[str]) -> dict[str, object]:
    return {name: value for name, value in settings.items() if name in known and name not in _OF_THE_REQUEST}


def _in_insert(text: str, start: int, settings: Mapping[str, object]) -> str:
    head = _INSERT.match(text, start)
    if head is None:
        raise ValueError(f"not an INSERT of outhaul's form: {text[:100]}")
    if not settings:
        return text
    # If a name stands in the clause twice, its last value is valid: the statement's own.
    if head["clause"]:
        return f"{text[: head.end()]}{_clause(settings)}, {text[head.end() :]}"
    return f"{text[: head.end()].rstrip()} SETTINGS {_clause(settings)}\n{text[head.end() :]}"


def _at_end(text: str, settings: Mapping[str, object]) -> str:
    own = _OWN_CLAUSE.search(text)
    names = set(_OWN_NAME.findall(own["settings"])) if own else set()
    added = {name: value for name, value in settings.items() if name not in names}
    if not added:
        return text
    return f"{text}, {_clause(added)}" if own else f"{text}\nSETTINGS {_clause(added)}"


def _clause(settings: Mapping[str, object]) -> str:
    return ",".join(f"{name}={_value(value)}" for name, value in settings.items())


def _value(value: object) -> str:
    match value:
        case bool():
            return str(int(value))
        case int() | float():
            return str(value)
        case dict():
            pairs = (f"{clickhouse_literal(str(key))}:{clickhouse_literal(str(one))}" for key, one in value.items())
            return f"{{{','.join(pairs)}}}"
        case _:
            return clickhouse_literal(str(value))
