"""ClickHouse's tables as it describes them -> findings: do they keep every event once, and take more?

Pure.

Source: https://clickhouse.com/docs/engines/table-engines/mergetree-family/replacingmergetree
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.cdc_reader.operate.doctor.finding import Finding, fail, fine, warn
from outhaul.sink.schema import widen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.sink.schema import Table
    from outhaul.sink.settings import Settings

_OLDEST, _JSON_SINCE = (22, 8), (25, 3)
# Each month in a batch takes a place of its own among the tokens that are remembered.
_MONTHS = 100
_MERGING = ("Summing", "Aggregating", "Collapsing", "VersionedCollapsing", "Graphite", "Coalescing")
_CHANGING = re.compile(r"cdc_ingested_at|\bnow|rand|\btoday")
_MONTHLY = re.compile(r"(toYYYYMM|toYear|toStartOfMonth|toStartOfQuarter|toStartOfYear)\(event_date_time\)")


@dataclass(frozen=True, slots=True)
class Parts:
    """Active parts of the fullest partition, and the server's limits; None where they are hidden from us."""

    most: int
    delay_at: int
    throw_at: int


@dataclass(frozen=True, slots=True)
class Consistency:
    """What other replicas are promised to see: number of replicas, and the three settings of our user."""

    replicas: int
    quorum: str
    parallel: bool
    sequential: bool


def version(text: str, context_type: str) -> Finding:
    """Judge the server's version."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
    if numbers < _OLDEST:
        return fail("version", f"{text}: times before 1925 and after 2283 do not fit", "Use ClickHouse 22.8 or later")
    if context_type == "JSON" and numbers < _JSON_SINCE:
        return fail("version", f"{text} has no settled JSON type", "OUTHAUL_CONTEXT_TYPE=String, or ClickHouse 25.3")
    return fine("version", text)


def engines(events: Table, letters: Table, settings: Settings) -> Iterator[Finding]:
    """Judge engine, tokens and keys of the two tables that batches go to."""
    for table, whose in ((events, ""), (letters, "dead letters' ")):
        yield engine(table, f"{whose}engine")
        yield window(table, settings.max_in_flight, f"{whose}tokens")
    yield partition_key(events)


def engine(table: Table, check: str = "engine") -> Finding:
    """Judge a table's engine, and whether its merges can tell events apart."""
    todo = f"RENAME TABLE {table.name} TO {table.name}_old; then: outhaul setup, and copy the rows"
    base = re.sub("^(Replicated|Shared)", "", table.engine)
    if not base.endswith("MergeTree"):
        return fail(check, f"{table.engine} neither remembers tokens nor keeps what it acknowledged", todo)
    if base.startswith(_MERGING):
        return fail(check, f"{table.engine} makes one row of several", todo)
    keys = {key.strip() for key in table.sorting_key.split(",")}
    if base.startswith("Replacing") and "id" not in keys and not {"cdc_lsn", "cdc_ordinal"} <= keys:
        return fail(
            check, f"merges would make one of events that share ({table.sorting_key}): id is not among them", todo
        )
    if not base.startswith("Replacing"):
        return warn(check, f"{table.engine}: events are stored once, but without the net below the net", todo)
    return fine(check, table.engine)


def window(table: Table, max_in_flight: int, check: str = "tokens") -> Finding:
    """Judge how many tokens a table remembers, beside the batches that may be on their way."""
    tokens = table.token_window
    name = "replicated_deduplication_window" if table.is_replicated else "non_replicated_deduplication_window"
    todo = widen(table.name).replace("non_replicated_deduplication_window", name)
    found = f"{name} = {tokens}, {max_in_flight} batches in flight"
    if tokens <= max_in_flight:
        return fail(check, f"{found}: a batch that is sent twice at once would be stored twice", todo)
    if tokens < max_in_flight * _MONTHS:
        return warn(check, f"{found}: little, if events of many months come at once", todo)
    return fine(check, f"{tokens} remembered, {max_in_flight} in flight")


def partition_key(table: Table) -> Finding:
    """Judge what event_log is partitioned by."""
    check = "partition key"
    key = table.partition_key
    if _CHANGING.search(key):
        return warn(check, f"{key} differs between two sendings of one batch, whose tokens then do not meet")
    if not key or _MONTHLY.fullmatch(key):
        return fine(check, key or "none")
    return warn(check, f"{key} is not by month: each partition of a batch is a part of its own")


def parts(found: Parts | None) -> Finding:
    """Judge the active parts of the fullest partition."""
    check = "parts"
    if found is None:
        return warn(check, "system.parts is hidden from this user")
    text = f"{found.most} in the fullest partition, delayed at {found.delay_at}, refused at {found.throw_at}"
    todo = "SYSTEM START MERGES  -- were they stopped? else see system.merges"
    if found.most >= found.throw_at:
        return fail(check, text, todo)
    if found.most >= min(found.delay_at, found.throw_at / 2):
        return warn(check, text, todo)
    return fine(check, f"{found.most} in the fullest partition, limit {found.throw_at}")


def time_range(kind: str, ends: dict[str, str]) -> Finding:
    """Judge what the server makes of the first and the last time that the reader sends it; both as text."""
    check = "event_date_time"
    todo = "RENAME TABLE ... TO ..._old; then: outhaul setup, and copy the rows"
    wrong = {sent: stored for sent, stored in ends.items() if not stored.startswith(sent)}
    if not wrong:
        return fine(check, f"{kind}, {' to '.join(end[:4] for end in ends)}")
    found = "; ".join(f"{sent} becomes {stored}" for sent, stored in wrong.items())
    # A server that refuses loses nothing: the row becomes a dead letter.
    known = all(sent.startswith(stored) or not stored[:1].isdigit() for sent, stored in wrong.items())
    return (warn if known else fail)(check, f"{kind}: {found}", todo)


def consistency(found: Consistency) -> Finding:
    """Judge whether a fence or a position that one replica has is seen by the next statement on another."""
    check = "replicas"
    text = (
        f"{found.replicas}, insert_quorum {found.quorum}, insert_quorum_parallel {found.parallel:d}, "
        f"select_sequential_consistency {found.sequential:d}"
    )
    # Quorums side by side leave nothing in order that a reader could ask for.
    if found.replicas <= 1 or (found.quorum not in {"0", "1"} and not found.parallel and found.sequential):
        return fine(check, text)
    return warn(
        check,
        f"{text}: a replica that lags would let an insert of an older reader through",
        "ALTER USER ... SETTINGS insert_quorum = 'auto', insert_quorum_parallel = 0, select_sequential_consistency = 1"
        "  -- or use one replica",
    )


def dead_letters(count: int | None, table: str) -> Finding:
    """Judge how many events were set aside; None where the table is hidden from us."""
    if count is None:
        return warn("dead letters", f"{table} cannot be read")
    if count:
        return warn("dead letters", f"{count:,} events could not be stored as they are", "outhaul dlq list")
    return fine("dead letters", "none")
