"""Tables as ClickHouse describes them -> findings: whether they keep each event once, and accept more inserts.

Pure.

Source: https://clickhouse.com/docs/engines/table-engines/mergetree-family/replacingmergetree
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.cdc_reader.operate.doctor.finding import Finding, broken, fail, fine, warn
from outhaul.sink.errors import PipelineError
from outhaul.sink.quoting import clickhouse_identifier
from outhaul.sink.retention import removing
from outhaul.sink.schema import MIGRATE, WINDOW_S, window_statement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.sink.replicas import Servers
    from outhaul.sink.schema import Table
    from outhaul.sink.settings import Settings

_OLDEST, _JSON_SINCE = (22, 8), (25, 3)
# ClickHouse remembers one token for each month in a batch.
_MONTHS = 100
_CHANGING = re.compile(r"cdc_ingested_at|\bnow|rand|\btoday")
_MONTHLY = re.compile(r"(toYYYYMM|toYear|toStartOfMonth|toStartOfQuarter|toStartOfYear)\(event_date_time\)")


@dataclass(frozen=True, slots=True)
class Parts:
    """Active parts of the partition that has most, and the limits for them."""

    most: int
    delay_at: int
    throw_at: int


def version(text: str, context_type: str) -> Finding:
    """Judge the server's version."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
    if numbers < _OLDEST:
        return fail(
            "version", f"{text} cannot store times before 1925 and after 2283", "Upgrade ClickHouse to 22.8 or later"
        )
    if context_type == "JSON" and numbers < _JSON_SINCE:
        return fail(
            "version",
            f"{text} has no stable JSON type",
            "Set OUTHAUL_CONTEXT_TYPE=String, or upgrade ClickHouse to 25.3 or later",
        )
    return fine("version", text)


def engines(events: Table, letters: Table, settings: Settings, other: str = "") -> Iterator[Finding]:
    """Judge engine, tokens and keys of the two tables that batches are inserted into; `other` as of `engine`."""
    for table, whose in ((events, ""), (letters, "dead letters' ")):
        yield engine(table, f"{whose}engine", other if table is events else "")
        yield window(table, settings.max_in_flight, f"{whose}tokens")
    yield partition_key(events)
    if rules := removing(events.definition):
        yield warn(
            "TTL",
            f"{events.name} loses events by {', '.join(rules)}: what is gone is neither verified nor pruned",
            "outhaul prune --older-than AGE  # an age shorter than the TTL",
        )


def engine(table: Table, check: str = "engine", other: str = "") -> Finding:
    """Judge a table's engine, and whether its merges keep different events apart.

    Args:
        table: the table.
        check: the finding's name.
        other: another source that has rows in the table; empty if no source has.
    """
    name, old = map(clickhouse_identifier, (table.name, f"{table.name}_old"))
    if not table.base_engine.endswith("MergeTree"):
        todo = f"RENAME TABLE {name} TO {old}; then: outhaul setup, and copy the rows"
        return fail(check, f"{table.engine} does not deduplicate batches, and may lose rows that it acknowledged", todo)
    if why := table.why_merges_lose(other):
        return fail(check, why, MIGRATE if table.replaces else f"RENAME TABLE {name} TO {old}; then: outhaul setup")
    if table.relies_on_ids:
        return fine(check, f"{table.engine}: keeps events with different ids")
    return fine(check, table.engine)


def window(table: Table, max_in_flight: int, check: str = "tokens") -> Finding:
    """Judge how many tokens a table remembers, compared with the batches that may be in flight."""
    tokens, seconds = table.token_window, table.token_window_s
    name = "replicated_deduplication_window" if table.is_replicated else "non_replicated_deduplication_window"
    todo = window_statement(table)
    found = f"{name} = {tokens}, {max_in_flight} batches in flight"
    if tokens <= max_in_flight:
        return fail(check, f"{found}: a batch that is sent twice at the same time would be stored twice", todo)
    if tokens < max_in_flight * _MONTHS:
        return warn(check, f"{found}: too few if batches have events of many months", todo)
    if seconds is not None and seconds < WINDOW_S:
        return warn(
            check,
            f"replicated_deduplication_window_seconds = {seconds}: the last batches of a reader that is stopped for "
            "longer may be stored twice, if others write to the table meanwhile",
            todo,
        )
    return fine(check, f"{tokens} remembered, {max_in_flight} in flight")


def partition_key(table: Table) -> Finding:
    """Judge the partition key of event_log."""
    check = "partition key"
    key = table.partition_key
    if _CHANGING.search(key):
        return warn(check, f"{key} differs when a batch is sent again, so ClickHouse does not deduplicate it by token")
    if not key or _MONTHLY.fullmatch(key):
        return fine(check, key or "none")
    return warn(check, f"{key} is not by month: each batch creates one part for each partition that it has events of")


def parts(found: Parts | None) -> Finding:
    """Judge the active parts of the partition that has most; None if the user cannot read system.parts."""
    check = "parts"
    if found is None:
        return warn(check, "not checked: this user cannot read system.parts")
    text = f"{found.most} in the fullest partition; inserts delayed at {found.delay_at}, refused at {found.throw_at}"
    todo = "SYSTEM START MERGES  -- if merges were stopped; otherwise look at system.merges"
    if found.most >= found.throw_at:
        return fail(check, text, todo)
    if found.most >= min(found.delay_at, found.throw_at / 2):
        return warn(check, text, todo)
    return fine(check, f"{found.most} in the fullest partition, limit {found.throw_at}")


def time_range(kind: str, ends: dict[str, str]) -> Finding:
    """Judge how the server stores the first and the last time that the reader sends; both as text."""
    check = "event_date_time"
    todo = "RENAME TABLE ... TO ..._old; then: outhaul setup, and copy the rows"
    wrong = {sent: stored for sent, stored in ends.items() if not stored.startswith(sent)}
    if not wrong:
        return fine(check, f"{kind}, {' to '.join(end[:4] for end in ends)}")
    found = "; ".join(f"{sent} is stored as {stored}" for sent, stored in wrong.items())
    # If the server refuses a time, nothing is lost: the row becomes a dead letter.
    known = all(sent.startswith(stored) or not stored[:1].isdigit() for sent, stored in wrong.items())
    return (warn if known else fail)(check, f"{kind}: {found}", todo)


def replicas(found: Servers | PipelineError) -> Finding:
    """Judge whether running inserts can be listed on every server that has a replica, or the error of the attempt."""
    check = "replicas"
    if isinstance(found, PipelineError):
        return broken(check, found)
    return fine(check, f"{found.count}, all reached through cluster {found.cluster!r}")


def dead_letters(count: int | None, table: str) -> Finding:
    """Judge the number of dead letters; None if the user cannot read the table."""
    if count is None:
        return warn("dead letters", f"not counted: this user cannot read {table}")
    if count:
        return warn("dead letters", f"{count:,} events could not be stored; they are kept", "outhaul dlq list")
    return fine("dead letters", "none")
