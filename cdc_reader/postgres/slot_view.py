"""Name of a slot -> what Postgres says of it, and who must not be disturbed before it is changed.

Edge: Postgres' views. Columns that a server does not have are left out.

Source: https://www.postgresql.org/docs/current/view-pg-replication-slots.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.cdc_reader.postgres.errors import MAKE_ANEW
from outhaul.sink.position import NO_LSN, Lsn

if TYPE_CHECKING:
    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.settings import Stream

_MINE = "pgoutput"


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """A slot as it is now; sizes in bytes, None where Postgres says nothing."""

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
    # Kept up to date from a primary: by this server, or by what it was before it was promoted.
    synced: bool = False
    of_standby: bool = False

    @property
    def is_copy(self) -> bool:
        """Whether a standby keeps it in step with the primary's: nobody can stream from it, or drop it."""
        return self.synced and self.of_standby

    @property
    def problem(self) -> str | None:
        """Why nobody can stream from it, or None."""
        if self.is_copy:
            return "it is a standby's copy of the primary's slot of that name, until the standby is promoted"
        if self.slot_type != "logical" or self.plugin != _MINE:
            return f"it is {self.slot_type} with plugin {self.plugin}, not logical with {_MINE}"
        if not self.here:
            return f"it belongs to database {self.database!r}"
        if self.wal_status == "lost" or self.invalidation_reason:
            return f"Postgres has invalidated it ({self.invalidation_reason or 'its WAL was removed'})"
        return None

    @property
    def todo(self) -> str:
        """What to do about the problem where making the slot anew would not help, or not for long; else empty."""
        if self.is_copy:
            return (
                "Drop it on the primary, or name another one in OUTHAUL_SLOT; `outhaul slot create` then makes one of "
                "the standby's own"
            )
        cure = cure_of(self.invalidation_reason)
        return f"{cure}. {MAKE_ANEW}" if cure else ""


def cure_of(reason: str | None) -> str:
    """Return what keeps Postgres from invalidating the next slot for the same reason; empty where nothing is known."""
    match reason:
        case "rows_removed" | "conflict":
            return (
                "The primary has removed rows of its catalogue that the standby needs to decode. On the standby: "
                "hot_standby_feedback = on, and primary_slot_name names a physical slot of the primary"
            )
        case "wal_level_insufficient":
            return "The primary was started with a wal_level below logical: set it back to that"
    return ""


def slot_facts(conn: Connection, stream: Stream) -> SlotFacts | None:
    """Ask for the slot; None where there is none.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    row = conn.fetch_one(
        "SELECT *, database = current_database() AS here, "
        # A standby keeps what it has received, replayed or not.
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
        # Postgres 16 tells no more than that a standby's replay was in the way.
        invalidation_reason=row.get("invalidation_reason") or ("conflict" if row.get("conflicting") else None),
        synced=bool(row.get("synced")),
        of_standby=row["of_standby"],
    )


def confirmed_lsn(conn: Connection, slot: str) -> Lsn:
    """Return the position that the slot has confirmed; NO_LSN where there is no slot.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    query = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s"
    found = conn.fetch_value(query, [slot])
    return Lsn.parse(found) if found else NO_LSN
