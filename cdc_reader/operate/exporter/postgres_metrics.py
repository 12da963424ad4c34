"""Slot and outbox in Postgres -> metrics.

Edge: one connection and two queries per poll; one more connection to the primary if the slot is on a standby. The role
needs no privilege but LOGIN.

Source: https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-REPLICATION-SLOTS-VIEW
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from outhaul.cdc_reader.operate.exporter.metric_family import counter, gauge, gauges, merged, of_source
from outhaul.cdc_reader.postgres.connect import connect_stream, end_of_primary
from outhaul.cdc_reader.slots import retained_wal

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.cdc_reader.slots.retained_wal import Slot
    from outhaul.sink.position import Lsn
    from outhaul.sink.settings import Settings, Stream

_CONNECT_TIMEOUT_S = "5"
_STATEMENT_TIMEOUT_MS = 5000
_STATUSES = ("reserved", "extended", "unreserved", "lost", "missing")

_COUNTERS: LiteralString = """
    SELECT s.spill_txns, s.spill_bytes, s.stream_txns, s.stream_bytes, s.total_txns, s.total_bytes,
           (SELECT sum(pg_total_relation_size(to_regclass(name)))::int8
            FROM unnest(%(tables)s::text[]) AS name) AS outbox_bytes
    FROM (SELECT 1) AS always LEFT JOIN pg_stat_replication_slots s ON s.slot_name = %(slot)s"""


def collect(settings: Settings) -> list[Metric]:
    """Poll once.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    end = end_of_primary(settings, connect_timeout=_CONNECT_TIMEOUT_S)
    with connect_stream(settings, connect_timeout=_CONNECT_TIMEOUT_S) as conn:
        conn.execute(f"SET statement_timeout = {_STATEMENT_TIMEOUT_MS}")
        return merged([_of_stream(conn, stream, end) for stream in settings.streams()])


def _of_stream(conn: Connection, stream: Stream, end: Lsn | None) -> list[Metric]:
    slot = retained_wal.fetch_slot(conn, stream.slot, end)
    names = {"slot": stream.slot, "tables": [outbox.sql_table for outbox in stream.settings.outboxes()]}
    counted = conn.fetch_one(_COUNTERS, names) or {}
    found = [*_of_slot(slot), *_of_counters(counted)]
    return found if stream.shard is None else [of_source(metric, stream.fence) for metric in found]


def _of_slot(slot: Slot | None) -> list[Metric]:
    status = "missing" if slot is None else slot.wal_status or "lost"
    retained_bytes, behind_bytes, limit_bytes, safe_bytes, inactive_s = (
        (slot.retained_bytes, slot.behind_bytes, slot.max_slot_wal_keep_size, slot.safe_wal_size, slot.inactive_s)
        if slot is not None
        else (None,) * 5
    )
    return [
        gauge("slot_active", "1 while a session streams from the slot", slot is not None and slot.active),
        gauges("slot_status", "1 for the slot's wal_status", "status", {one: one == status for one in _STATUSES}),
        gauge("slot_retained_bytes", "WAL that the slot keeps on its server", retained_bytes),
        gauge("slot_behind_bytes", "WAL from the slot's confirmed position to the end", behind_bytes),
        gauge(
            "slot_safe_wal_bytes",
            "WAL that may still be written before Postgres gives the slot up; only with max_slot_wal_keep_size",
            None if limit_bytes is None else safe_bytes,
        ),
        gauge("slot_wal_limit_bytes", "max_slot_wal_keep_size, if it is set", limit_bytes),
        gauge("slot_inactive_seconds", "Time since a session streamed from the slot (Postgres 17)", inactive_s),
    ]


def _of_counters(row: dict[str, Any]) -> list[Metric]:
    return [
        counter("slot_transactions", "Transactions decoded for the slot", row["total_txns"]),
        counter("slot_bytes", "Bytes of transactions decoded for the slot", row["total_bytes"]),
        counter(
            "slot_spilled_transactions", "Transactions that did not fit logical_decoding_work_mem", row["spill_txns"]
        ),
        counter("slot_spilled_bytes", "Bytes of those transactions that decoding wrote to disk", row["spill_bytes"]),
        counter("slot_streamed_transactions", "Transactions streamed before their commit", row["stream_txns"]),
        counter("slot_streamed_bytes", "Bytes streamed before their commit", row["stream_bytes"]),
        gauge("outbox_bytes", "Size of the outbox with its indexes", row["outbox_bytes"]),
    ]
