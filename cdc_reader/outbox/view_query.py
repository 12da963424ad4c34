"""A view's query, its columns and its target -> how the two are compared, or why they cannot be.

Pure. A view makes something of each batch, and the target has what it made of all batches. So only what is the same for
all batches together can be compared: rows that are made one by one, and sums.

Source: https://clickhouse.com/docs/sql-reference/statements/create/view
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.sink.quoting import clickhouse_identifier

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from outhaul.sink.schema import Table

_QUOTED = re.compile(r"'(?:[^'\\]|\\.|'')*'")
_QUOTED_NAME = re.compile(r"`(?:[^`\\]|\\.)*`|\"(?:[^\"\\]|\\.)*\"")
_CALL = re.compile(r"\b([A-Za-z_]\w*)\(")
# Endings of names of aggregate functions that change what they take or return.
_COMBINATOR = re.compile(
    r"(If|Array|Map|SimpleState|State|Merge|ForEach|Distinct|OrDefault|OrNull|Resample|ArgM(in|ax))$"
)
_ADDITIVE = re.compile(r"(?:count|sum)(?:If)?(?:SimpleState|State)?\(", re.IGNORECASE)
_STATE = re.compile(r"AggregateFunction\((count|countIf|sum|sumIf)\b(.*)\)", re.DOTALL)
_SIMPLE_SUM = re.compile(r"SimpleAggregateFunction\(sum\b,?\s*(.*)\)", re.DOTALL)
_EXACT_NUMBER = re.compile(r"(?:Nullable\()?(U?Int|Decimal)")

_CHANGING = re.compile(
    r"\b(now|now64|today|yesterday|rand\w*|random\w+|generate\w+|rowNumber\w+|runningDifference\w*|neighbor|dict\w+"
    r"|joinGet\w*|currentUser|hostName|getSetting|timezone|blockNumber|file)\(",
    re.IGNORECASE,
)
_OF_ALL_ROWS = re.compile(r"\b(LIMIT|DISTINCT|HAVING|OVER|QUALIFY|WINDOW|ROLLUP|CUBE|TOTALS|SAMPLE|FINAL)\b")
_READABLE = {"Memory", "Log", "TinyLog", "StripeLog", "Distributed"}


@dataclass(frozen=True, slots=True)
class Plan:
    """How a view's query and its target are compared.

    Attributes:
        keys: columns that tell rows apart; both sides are grouped by them.
        sums: expressions that are compared for each group. Both sides have the columns in the types of the target.
        columns: all columns that are read.
        left_out: columns of the query that cannot be compared.
        counts_rows: whether the only sum is the number of rows.
        is_growing: whether no sum becomes smaller by more events.
    """

    keys: tuple[str, ...]
    sums: tuple[str, ...]
    columns: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    counts_rows: bool = False
    is_growing: bool = True


def plan(
    as_select: str, made: Sequence[str], target: Table, types: Mapping[str, str], aggregates: Collection[str]
) -> Plan | str:
    """Return how a view is compared with its target, or why that cannot be done.

    Args:
        as_select: the view's query, as ClickHouse prints it.
        made: names of the columns that the query returns, in order.
        target: the table into which the view inserts.
        types: type of each of its columns.
        aggregates: names of all aggregate functions, in lower case.
    """
    if why := _why_not(as_select, target):
        return why
    text = _without_texts(as_select)
    is_aggregated = "GROUP BY" in text or any(_is_aggregate(name, aggregates) for name in _CALL.findall(text))
    items = list(_items(as_select)) if is_aggregated else [""] * len(made)
    if len(items) != len(made):
        return "its columns cannot be told apart"
    parts = _Parts(target, is_aggregated=is_aggregated)
    for name, item in zip(made, items, strict=True):
        if name in types:
            parts.add(name, types[name], item, is_aggregate=_has_aggregate(item, aggregates))
    return parts.plan()


def _why_not(as_select: str, target: Table) -> str:
    text = _without_texts(as_select)
    if not (target.engine.endswith("MergeTree") or target.engine in _READABLE):
        return f"its target is a {target.engine}"
    if target.base_engine.startswith(("Collapsing", "VersionedCollapsing", "Graphite")):
        return f"merges of its {target.engine} remove rows"
    if re.search(r"\bTTL\b", _without_texts(target.definition)):
        return "its target has a TTL"
    if len(re.findall(r"\bSELECT\b", text)) > 1:
        return "it has a query within the query"
    if re.search(r"(?<!ARRAY )\bJOIN\b", text):
        return "it joins other tables"
    if found := _OF_ALL_ROWS.search(text):
        return f"it has {found[1]}, which has another meaning for a batch than for all events"
    if found := _CHANGING.search(text):
        return f"it calls {found[1]}, whose result is not that of the time of the insert"
    return ""


class _Parts:
    """The columns of a plan, as they are found."""

    def __init__(self, target: Table, *, is_aggregated: bool) -> None:
        self._target = target
        self._is_aggregated = is_aggregated
        self._merges = target.base_engine in {"SummingMergeTree", "AggregatingMergeTree"}
        self._replaces = target.base_engine in {"ReplacingMergeTree", "CoalescingMergeTree"}
        listed = re.match(r"\w+MergeTree\((.*?)\) ", _without_texts(target.definition)) if self._merges else None
        self._is_merged = self._merges or self._replaces
        self._listed = re.findall(r"\w+", listed[1]) if listed else []
        self._keys: list[str] = []
        self._sums: dict[str, str] = {}
        self._left_out: list[str] = []
        self._is_growing = True

    def add(self, name: str, kind: str, item: str, *, is_aggregate: bool) -> None:
        """Add a column of the query, by its type in the target and its expression in the query."""
        is_additive = not is_aggregate or _is_additive(item)
        if expression := self._sum(name, kind, is_aggregate=is_aggregate, is_additive=is_additive):
            self._sums[name] = expression
            self._is_growing &= "UInt" in kind or "(count" in kind
        elif is_aggregate or "AggregateFunction(" in kind or (self._is_merged and name not in self._target.key_columns):
            self._left_out.append(name)
        else:
            self._keys.append(name)

    def _sum(self, name: str, kind: str, *, is_aggregate: bool, is_additive: bool) -> str:
        column = clickhouse_identifier(name)
        if state := _STATE.fullmatch(kind):
            return f"{state[1]}Merge({column})" if "Float" not in state[2] else ""
        if not is_additive:
            return ""
        if simple := _SIMPLE_SUM.fullmatch(kind):
            return f"sum({column})" if _EXACT_NUMBER.match(simple[1]) else ""
        if not _EXACT_NUMBER.match(kind):
            return ""
        if is_aggregate and not self._is_merged:
            return f"sum({column})"
        is_summed = self._target.base_engine == "SummingMergeTree" and name not in self._target.key_columns
        return f"sum({column})" if is_summed and (not self._listed or name in self._listed) else ""

    def plan(self) -> Plan | str:
        """Return the plan of all columns."""
        keys, sums, left_out = tuple(self._keys), tuple(self._sums.values()), tuple(self._left_out)
        columns = (*keys, *self._sums)
        if self._replaces:
            # Merges keep one row of each key, whichever.
            return Plan(keys, ("toUInt64(1)",), columns, left_out) if keys else "no column of its key can be compared"
        if self._merges or self._is_aggregated:
            found = Plan(keys, sums, columns, left_out, is_growing=self._is_growing)
            return found if sums else "no column is a sum"
        return Plan(keys, ("count()",), columns, left_out, counts_rows=True)


def _without_texts(text: str) -> str:
    return _QUOTED_NAME.sub("name", _QUOTED.sub("''", text))


def _is_aggregate(name: str, aggregates: Collection[str]) -> bool:
    while name.lower() not in aggregates:
        shorter = _COMBINATOR.sub("", name)
        if shorter == name:
            return False
        name = shorter
    return True


def _has_aggregate(item: str, aggregates: Collection[str]) -> bool:
    return any(_is_aggregate(name, aggregates) for name in _CALL.findall(_without_texts(item)))


def _is_additive(item: str) -> bool:
    """Tell whether an expression is one count or sum, and nothing around it."""
    expression = re.sub(rf" AS (?:\w+|{_QUOTED_NAME.pattern})$", "", item.strip())
    if not _ADDITIVE.match(expression):
        return False
    ends = [at for at, depth in _depths(expression) if depth == 0 and expression[at] == ")"]
    return ends == [len(expression) - 1]


def _items(as_select: str) -> Iterator[str]:
    """Yield the expressions between SELECT and FROM."""
    outside = [at for at, depth in _depths(as_select) if depth == 0]
    plain = set(outside)
    starts = [found.end() for found in re.finditer(r"\bSELECT ", as_select) if found.start() in plain]
    ends = [found.start() for found in re.finditer(r" FROM ", as_select) if found.start() in plain]
    if not starts or not ends:
        return
    begin = starts[0]
    for at in outside:
        if starts[0] <= at < ends[0] and as_select[at] == ",":
            yield as_select[begin:at].strip()
            begin = at + 1
    yield as_select[begin : ends[0]].strip()


def _depths(text: str) -> Iterator[tuple[int, int]]:
    """Yield each place outside of quotes, and how many brackets are open behind it."""
    quoted = [found.span() for found in re.finditer(f"{_QUOTED.pattern}|{_QUOTED_NAME.pattern}", text)]
    hidden = {at for begin, end in quoted for at in range(begin, end)}
    depth = 0
    for at, letter in enumerate(text):
        if at not in hidden:
            depth += (letter in "([{") - (letter in ")]}")
            yield at, depth
