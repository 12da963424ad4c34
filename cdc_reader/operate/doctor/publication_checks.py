"""Outbox, publication and slot -> findings: whether every insert is captured, and how much WAL the slot keeps.

Pure.

Source: https://www.postgresql.org/docs/current/view-pg-replication-slots.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from outhaul.cdc_reader.operate.doctor.finding import Finding, broken, fail, fine, tried, warn
from outhaul.cdc_reader.postgres.errors import slot_missing, slot_unusable
from outhaul.cdc_reader.postgres.preflight import check_publication
from outhaul.sink.quantities import size_text
from outhaul.sink.quoting import postgres_identifier, postgres_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.cdc_reader.postgres.slot_view import SlotFacts
    from outhaul.sink.settings import Stream

_FAILOVER_SINCE = 170000
_KINDS = {"v": "a view", "m": "a materialised view", "f": "a foreign table", "S": "a sequence", "i": "an index"}


@dataclass(frozen=True, slots=True)
class OutboxFacts:
    """The table: relkind, relpersistence, number of partitions, and names of those whose inserts are not in the WAL."""

    kind: str
    persistence: str
    partitions: int
    uncaptured: list[str]


@dataclass(frozen=True, slots=True)
class Prospect:
    """How far the slot is from its limit, in bytes, and whether it is synchronized; None if its version cannot tell."""

    safe_wal_size: int | None
    behind_bytes: int | None
    failover: bool | None


def outbox(table: OutboxFacts | None, name: str) -> Iterator[Finding]:
    """Judge the table; None if it does not exist."""
    if table is None:
        yield fail("outbox", f"Postgres has no table {name}", "outhaul setup  # or set OUTHAUL_TABLE to your table")
    elif table.kind not in {"r", "p"}:
        yield fail(
            "outbox", f"{name} is {_KINDS.get(table.kind, 'not a table')}", "Set OUTHAUL_TABLE to the table itself"
        )
    elif table.persistence != "p":
        yield fail(
            "outbox",
            f"{name} is unlogged: its inserts are not in the WAL",
            f"ALTER TABLE {postgres_table(name)} SET LOGGED;",
        )
    else:
        yield fine("outbox", f"{name} is a table" if table.kind == "r" else f"{name} is a partitioned table")


def publication(stream: Stream, found: dict[str, Any] | None, table: OutboxFacts) -> Iterator[Finding]:
    """Judge a row of preflight's PUBLICATION; None if the publication does not exist."""
    name, outboxes = stream.publication, stream.settings.outboxes()
    tables, quoted = ", ".join(one.sql_table for one in outboxes), postgres_identifier(name)
    verdict = tried(
        "publication",
        f"{name} has only {' and '.join(one.table for one in outboxes)}",
        lambda: check_publication(stream, found),
    )
    yield verdict
    if found is None:
        return
    if found["more_than_inserts"]:
        yield warn(
            "insert only",
            f"{name!r} also publishes updates, deletes or truncates, which the reader receives and ignores",
            f"ALTER PUBLICATION {quoted} SET (publish = 'insert');",
        )
    else:
        yield fine("insert only", "nothing else is published")
    if found["puballtables"]:
        yield warn(
            "all tables",
            f"{name!r} is FOR ALL TABLES: as soon as another table exists, no reader starts",
            f"DROP PUBLICATION {quoted}; CREATE PUBLICATION {quoted} FOR TABLE {tables} "
            "WITH (publish = 'insert', publish_via_partition_root = true);  -- while no reader runs",
        )
    if table.kind == "p":
        yield partitions(name, table, via_root=found["pubviaroot"])
    elif not found["pubviaroot"]:
        yield warn(
            "via root",
            f"if {outboxes[0].table} were partitioned, {name!r} would not capture its partitions",
            f"ALTER PUBLICATION {quoted} SET (publish_via_partition_root = true);",
        )
    else:
        yield fine("via root", "partitions would be captured")


def partitions(publication: str, table: OutboxFacts, *, via_root: bool) -> Finding:
    """Judge whether inserts into all partitions, and into future ones, reach the reader."""
    if not via_root:
        return fail(
            "partitions",
            f"{publication!r} publishes partitions under their own names, which the reader does not accept",
            f"ALTER PUBLICATION {postgres_identifier(publication)} SET (publish_via_partition_root = true);",
        )
    if table.uncaptured:
        return fail(
            "partitions",
            f"inserts into {', '.join(table.uncaptured)} are not in the WAL: the tables are unlogged or foreign",
            f"ALTER TABLE {table.uncaptured[0]} SET LOGGED;  -- a foreign table: copy it into a local one",
        )
    return fine("partitions", f"all {table.partitions} are captured, and new ones will be")


def slot(stream: Stream, facts: SlotFacts | None, prospect: Prospect | None, *, version: int) -> Iterator[Finding]:
    """Judge the slot; None if it does not exist. `version` is server_version_num."""
    if facts is None or prospect is None:
        yield broken("slot", slot_missing(stream.slot))
        return
    if facts.problem:
        yield broken("slot", slot_unusable(stream.slot, facts.problem, facts.todo))
    else:
        yield fine("slot", f"{facts.name}, {facts.plugin}")
    yield wal(facts, prospect)
    yield active(facts)
    if facts.of_standby:
        yield fine("slot failover", "not needed: the slot is on the standby, and stays when that is promoted")
    elif version >= _FAILOVER_SINCE:
        yield failover(prospect, stream.slot)


def wal(facts: SlotFacts, prospect: Prospect) -> Finding:
    """Judge how much WAL the slot keeps, and whether Postgres is about to remove it."""
    kept = facts.retained_bytes or 0
    found = f"{size_text(kept)} kept, {size_text(prospect.behind_bytes or 0)} behind, {facts.wal_status}"
    left = prospect.safe_wal_size
    if left is not None:
        found += f", {size_text(max(0, left))} left until the limit"
    if facts.wal_status in {"unreserved", "lost"}:
        return fail(
            "slot WAL",
            f"{found}: Postgres has removed WAL that the slot needs, or removes it at the next checkpoint",
            "outhaul status  # shows what is wrong; if the slot is not lost yet, raise max_slot_wal_keep_size at once",
        )
    if facts.wal_status == "extended" or (left is not None and left < kept):
        return warn("slot WAL", f"{found}: more than usual", "outhaul status  # shows what is wrong")
    return fine("slot WAL", found)


def active(facts: SlotFacts) -> Finding:
    """Judge whether a session streams from the slot."""
    if facts.active_pid is not None:
        return fine("slot in use", "a reader streams from it")
    return warn("slot in use", "no reader streams from it, and it keeps WAL", "outhaul reader")


def failover(prospect: Prospect, name: str) -> Finding:
    """Judge whether the slot is synchronized to standbys."""
    if prospect.failover:
        return fine("slot failover", "on, for standbys that synchronize slots")
    command = f"ALTER_REPLICATION_SLOT {postgres_identifier(name)} (FAILOVER true)"
    return warn(
        "slot failover",
        "off: the slot is lost when a standby is promoted",
        f"psql 'dbname=... replication=database' -c '{command}'  # while no reader runs",
    )
