"""System tables of ClickHouse, and a small query of event_log -> metrics.

Edge: HTTP. All but the dead letters and the probe comes from `system.*`. The figures of queries exist only on a server
that keeps `system.query_log`; the embedded engine does not.

Source: https://clickhouse.com/docs/operations/system-tables
"""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, Any

from outhaul.cdc_reader.operate.exporter.metric_family import counter, gauge, gauges
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.sql import query
from outhaul.sink.view_gaps import count_gaps, gaps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client.metrics_core import Metric

    from outhaul.sink.settings import Settings

_TIMEOUT_S = 10
_LOG = "system.query_log"
# Months that have their own label value; all older ones share one, so that the number of series is bounded.
_PARTITIONS = 24
_OLDER = "older"


class ClickHouseMetrics:
    """Polls one ClickHouse; keeps the time of the latest insert, which the server forgets after a while."""

    def __init__(self, settings: Settings) -> None:
        """Keep the address; no connection is opened yet."""
        self._settings = settings
        self._clickhouse = ClickHouse.of(settings, timeout_s=_TIMEOUT_S)
        self._outboxes = settings.outboxes()
        self._tables = {"tables": [outbox.clickhouse_table for outbox in self._outboxes]}
        self._inserted_at: int | None = None
        self._has_log: bool | None = None

    def collect(self) -> list[Metric]:
        """Poll once.

        Raises:
            PipelineError: ClickHouse refuses or does not answer.
        """
        partitions = self._clickhouse.rows(query("monitor_partitions"), parameters=self._tables)
        server = self._clickhouse.rows(query("monitor_server"), parameters=self._tables)[0]
        self._inserted_at = max(filter(None, (self._inserted_at, server[3])), default=None)
        return [*_of_partitions(partitions), *_of_server(server, self._inserted_at), *self._of_table()]

    def _of_table(self) -> list[Metric]:
        source = {"source": self._settings.source}
        letters = sum(
            self._clickhouse.rows(query("monitor_letters", dead_letters=outbox.dead_letters_table), parameters=source)[
                0
            ][0]
            for outbox in self._outboxes
        )
        lacking = count_gaps(gap for outbox in self._outboxes for gap in gaps(self._clickhouse, outbox))
        begun_at = time.monotonic()
        self._clickhouse.rows(query("monitor_probe", table=self._settings.clickhouse_table), parameters=source)
        probe_s = time.monotonic() - begun_at
        count, p50_s, p99_s = self._queries()
        return [
            gauge("clickhouse_dead_letters", "Dead letters that are neither retried nor discarded", letters),
            gauges(
                "clickhouse_view_gaps", "Events that a materialized view lacks because it refused them", "view", lacking
            ),
            gauge("clickhouse_probe_seconds", "Time of a count over the last hour of event_log", probe_s),
            gauge("clickhouse_queries", "Queries of event_log in the last five minutes; only with query_log", count),
            gauges(
                "clickhouse_query_seconds",
                "Time of queries of event_log in the last five minutes; only with query_log",
                "quantile",
                {"0.5": p50_s, "0.99": p99_s},
            ),
        ]

    def _queries(self) -> Sequence[Any]:
        if self._has_log is None:
            found = "SELECT count() FROM system.tables WHERE database = 'system' AND name = 'query_log'"
            self._has_log = bool(self._clickhouse.rows(found)[0][0])
        if not self._has_log:
            return (None, None, None)
        asked = query("monitor_queries", log=_LOG)
        count, *times = self._clickhouse.rows(asked, parameters=self._tables)[0]
        return (count, *(times if count else (None, None)))


def _of_partitions(rows: Sequence[Sequence[Any]]) -> list[Metric]:
    """Return a value for each of the newest months, and one for all others."""
    named: dict[str, list[int]] = {row[0]: list(row[1:]) for row in islice(rows, _PARTITIONS)}
    older = [row[1:] for row in rows[_PARTITIONS:]]
    if older:
        # The limit on parts applies to each partition, so the largest number of any partition is what matters.
        events, parts, *sizes = zip(*older, strict=True)
        named[_OLDER] = [sum(events), max(parts), *(sum(size) for size in sizes)]
    families = (
        ("events", "Rows of event_log by month"),
        ("parts", "Active parts of event_log by month"),
        ("bytes_on_disk", "Bytes that event_log takes on disk by month"),
        ("uncompressed_bytes", "Bytes of event_log's columns before compression by month"),
    )
    return [
        gauges(f"clickhouse_{name}", what, "partition", {month: row[column] for month, row in named.items()})
        for column, (name, what) in enumerate(families)
    ]


def _of_server(row: Sequence[Any], inserted_at: int | None) -> list[Metric]:
    merges, merge_s, parts_limit, _, inserts, rows, seconds, delayed, rejected = row
    return [
        gauge("clickhouse_merges", "Merges of event_log that run now", merges),
        gauge("clickhouse_merge_seconds", "How long the longest running merge of event_log has run", merge_s or 0),
        gauge("clickhouse_parts_limit", "Parts of a partition at which ClickHouse refuses inserts", parts_limit),
        gauge("clickhouse_last_stored_timestamp_seconds", "When rows were last inserted into event_log", inserted_at),
        counter("clickhouse_inserts", "Inserts of the whole server", inserts),
        counter("clickhouse_inserted_events", "Rows inserted on the whole server", rows),
        counter("clickhouse_insert_seconds", "Time of inserts on the whole server", seconds),
        counter("clickhouse_delayed_inserts", "Inserts that ClickHouse delayed because of many parts", delayed),
        counter("clickhouse_rejected_inserts", "Inserts that ClickHouse refused because of too many parts", rejected),
    ]
