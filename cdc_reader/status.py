"""Three servers and the reader's own word -> one snapshot, and whether something in it is wrong.

Edge: asks; a server that does not answer is part of the answer.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg

from cdc_reader.preflight import connect
from cdc_reader.sqlstate import error_of
from cdc_reader.state import ReaderState
from sink.batch import reader_key
from sink.errors import PipelineError

if TYPE_CHECKING:
    from sink.clickhouse import ClickHouse
    from sink.payloads import Payloads
    from sink.settings import Settings

_SLOT: LiteralString = """
    SELECT active, active_pid, plugin, database, confirmed_flush_lsn::text AS confirmed_lsn, wal_status, safe_wal_size,
           pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint AS retained_bytes,
           pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint AS behind_bytes
    FROM pg_replication_slots WHERE slot_name = %s"""

_STORED = """
    SELECT count(), max(cdc_ingested_at), toUnixTimestamp64Micro(max(cdc_ingested_at)) / 1e6
    FROM {table} WHERE cdc_source = {{source:String}}"""

_PARTS = """
    SELECT count(), sum(bytes_on_disk) FROM system.parts
    WHERE database = currentDatabase() AND table = {table:String} AND active"""

# A stored batch older than this while rows wait is worth a word, in seconds.
_STUCK_S = 60.0


@dataclass(slots=True)
class Status:
    """A snapshot; `wrong` names, in plain words, all that is not as it should be."""

    slot: dict[str, Any] | None = None
    reader: ReaderState | None = None
    queue_length: int | None = None
    rows: int | None = None
    dead_letters: int | None = None
    parts: int | None = None
    bytes_on_disk: int | None = None
    last_stored_at: float | None = None
    wrong: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the snapshot in JSON types."""
        return asdict(self)


def gather(settings: Settings, payloads: Payloads, clickhouse: ClickHouse) -> Status:
    """Ask all three servers; none of them can make it fail."""
    status = Status()
    for ask in (_ask_postgres, _ask_redis, _ask_clickhouse):
        try:
            ask(status, settings, payloads, clickhouse)
        except PipelineError as error:
            status.wrong.append(str(error))
    _judge(status, settings)
    return status


def _ask_postgres(status: Status, settings: Settings, _payloads: Payloads, _clickhouse: ClickHouse) -> None:
    with connect(settings.postgres_dsn.get_secret_value()) as conn:
        try:
            status.slot = conn.execute(_SLOT, [settings.slot]).fetchone()
        except psycopg.Error as error:
            raise error_of(error.sqlstate, str(error), slot=settings.slot) from error
    if status.slot is None:
        status.wrong.append(f"slot {settings.slot!r} does not exist. Create it with `outhaul setup`")


def _ask_redis(status: Status, settings: Settings, payloads: Payloads, _clickhouse: ClickHouse) -> None:
    line = payloads.text(reader_key(settings.source))
    status.reader = ReaderState.from_json(line) if line else None
    status.queue_length = payloads.length(settings.queue)
    if status.reader is None:
        status.wrong.append("no reader runs. Start one with `outhaul reader`")


def _ask_clickhouse(status: Status, settings: Settings, _payloads: Payloads, clickhouse: ClickHouse) -> None:
    source = {"source": settings.source}
    rows, _, last = clickhouse.rows(_STORED.format(table=settings.clickhouse_table), parameters=source)[0]
    dead, _, _ = clickhouse.rows(_STORED.format(table=settings.dead_letters_table), parameters=source)[0]
    parts, size = clickhouse.rows(_PARTS, parameters={"table": settings.clickhouse_table})[0]
    status.rows, status.dead_letters, status.parts, status.bytes_on_disk = rows, dead, parts, size
    status.last_stored_at = float(last) if rows else None


def _judge(status: Status, settings: Settings) -> None:
    slot, reader = status.slot, status.reader
    if slot and slot["wal_status"] in {"unreserved", "lost"}:
        status.wrong.append(
            f"slot {settings.slot!r} has wal_status {slot['wal_status']}: its WAL is about to go, or gone"
        )
    if slot and not slot["active"] and reader is not None:
        status.wrong.append(f"nobody streams from slot {settings.slot!r}; the reader is reconnecting")
    if reader and reader.trouble:
        status.wrong.append(f"the reader waits: {reader.trouble}")
    if reader and reader.lag_s > _STUCK_S and (reader.last_stored_at or 0) < time.time() - _STUCK_S:
        status.wrong.append(f"nothing has been stored for {_STUCK_S:.0f} s though events wait: is a worker running?")
