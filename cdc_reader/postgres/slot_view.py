"""Name of a slot -> its facts in Postgres, and why it cannot be streamed from.

Edge: Postgres' views. Columns that an older server does not have get a default.

Source: https://www.postgresql.org/docs/current/view-pg-replication-slots.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.cdc_reader.postgres.errors import RECREATE
from outhaul.sink.position import NO_LSN, Lsn
from outhaul.sink.quoting import postgres_literal

if TYPE_CHECKING:
    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.settings import Stream

_PLUGIN = "pgoutput"


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """The present state of a slot; sizes in bytes, None if Postgres has no value."""

    name: str
    plugin: str | None
    slot_type: str
    database: str | None
    here: bool
    active_pid: int | None
    confirmed: Lsn | None
    retained_bytes: int | None
    wal_status: str | None
    invalidation_reason: str | None
    # Synchronised from a primary, by this server or before this server was promoted.
    synced: bool = False
    of_standby: bool = False
    temporary: bool = False
    two_phase: bool = False

    @property
    def is_copy(self) -> bool:
        """Whether a standby synchronises it with the primary's slot: then it cannot be streamed from or dropped."""
        return self.synced and self.of_standby

    @property
    def is_own(self) -> bool:
        """Whether outhaul may end its session, move it or drop it: another program may use a slot of another kind."""
        is_ours = self.slot_type == "logical" and self.plugin == _PLUGIN and self.here and not self.temporary
        return is_ours and not self.is_copy

    @property
    def problem(self) -> str | None:
        """Why the slot cannot be streamed from, or None."""
        if self.is_copy:
            return "it is a standby's copy of the primary's slot with the same name, until the standby is promoted"
        if self.slot_type != "logical" or self.plugin != _PLUGIN:
            return f"it is {self.slot_type} with plugin {self.plugin}, not logical with {_PLUGIN}"
        if not self.here:
            return f"it belongs to database {self.database!r}"
        if self.temporary:
            return f"it is temporary, and ends with the session that created it (process {self.active_pid} of Postgres)"
        if self.two_phase:
            return (
                "it is two_phase: it sends transactions when they are prepared, and outhaul stores them at the commit"
            )
        if self.wal_status == "lost" or self.invalidation_reason:
            return f"Postgres has invalidated it ({self.invalidation_reason or 'its WAL was removed'})"
        return None

    @property
    def todo(self) -> str:
        """What to do about the problem if creating the slot again is not enough; else empty."""
        if self.is_copy:
            return (
                "Drop it on the primary, or set OUTHAUL_SLOT to another name; then `outhaul slot create` creates a "
                "slot of the standby"
            )
        if not self.is_own:
            return (
                "Another program may use it: set OUTHAUL_SLOT to another name, then `outhaul setup`. "
                f"If no program does, drop it: {self._drop}"
            )
        if self.two_phase:
            return RECREATE
        cure = cure_of(self.invalidation_reason)
        return f"{cure}. {RECREATE}" if cure else ""

    @property
    def _drop(self) -> str:
        if self.temporary:
            return f"SELECT pg_terminate_backend({self.active_pid})"
        where = "" if self.here or not self.database else f" in database {self.database}"
        return f"SELECT pg_drop_replication_slot({postgres_literal(self.name)}){where}"


def cure_of(reason: str | None) -> str:
    """Return how to prevent that Postgres invalidates the next slot for the same reason; empty if unknown."""
    match reason:
        case "rows_removed" | "conflict":
            return (
                "The primary has removed rows of its catalogue that the standby needs to decode. On the standby: "
                "hot_standby_feedback = on, and primary_slot_name names a physical slot of the primary"
            )
        case "wal_level_insufficient":
            return "The primary was started with a wal_level below logical: set wal_level = 'logical' again"
    return ""


def slot_facts(conn: Connection, stream: Stream) -> SlotFacts | None:
    """Return the facts of the slot; None if it does not exist.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    row = conn.fetch_one(
        "SELECT *, database = current_database() AS here, "
        # A standby keeps WAL that it has received, replayed or not.
        "(CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) "
        "ELSE pg_current_wal_lsn() END - restart_lsn)::int8 AS retained, pg_is_in_recovery() AS of_standby "
        "FROM pg_replication_slots WHERE slot_name = %s",
        [stream.slot],
    )
    if row is None:
        return None
    return SlotFacts(
        name=row["slot_name"],
        plugin=row["plugin"],
        slot_type=row["slot_type"],
        database=row["database"],
        here=bool(row["here"]),
        active_pid=row["active_pid"],
        confirmed=Lsn.parse(row["confirmed_flush_lsn"]) if row["confirmed_flush_lsn"] else None,
        retained_bytes=row["retained"],
        wal_status=row["wal_status"],
        # Postgres 16 only shows that the slot conflicted with a standby's replay.
        invalidation_reason=row.get("invalidation_reason") or ("conflict" if row.get("conflicting") else None),
        synced=bool(row.get("synced")),
        of_standby=row["of_standby"],
        temporary=row["temporary"],
        two_phase=row["two_phase"],
    )


def confirmed_lsn(conn: Connection, slot: str) -> Lsn:
    """Return the position that the slot has confirmed; NO_LSN if the slot does not exist.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    query = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s"
    found = conn.fetch_value(query, [slot])
    return Lsn.parse(found) if found else NO_LSN
