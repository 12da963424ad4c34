"""A stored batch -> its rows in the views of its table that lack them.

Edge: ClickHouse. The rows are read from the table and inserted into it under the batch's own token: the table and the
views that have had the batch drop them, and a view that lacks the batch receives it.

Source: docs/adr/0017-a-view-receives-each-event-once.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outhaul.sink.clickhouse_errors import is_thrown
from outhaul.sink.errors import FatalError, TransientError
from outhaul.sink.quoting import clickhouse_identifier
from outhaul.sink.replicas import IN_SEQUENCE, ONE_SERVER
from outhaul.sink.schema import tables
from outhaul.sink.sql import query

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.replicas import Servers

_LATE = "outhaul: a replica lags"
FORGOTTEN = "outhaul: forgotten"
"""What ClickHouse answers to a batch that is sent again so late that its token may be forgotten."""
NOTED = "outhaul: noted"
"""What ClickHouse answers to a batch that is sent again although a view is noted to lack it as a whole."""

# Share of the window of a table, after which a batch counts as forgotten: an insert has a token for each partition, and
# others may insert, too.
_WINDOW_SHARE = 4
_FOR_EVER_S = 1 << 40

# More rows than a batch may have: ClickHouse makes one block of a batch, and so one part for each month.
_BLOCK_ROWS = 1 << 20


def push_again(
    clickhouse: ClickHouse,
    table: str,
    view_gaps: str,
    guard: str,
    batch: int,
    bound: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    servers: Servers = ONE_SERVER,
    though_noted: bool = False,
) -> None:
    """Send the stored rows of a batch to the views that lack them.

    Args:
        clickhouse: the server.
        table: the table of the batch.
        view_gaps: the table of what its views lack.
        guard: condition of `outhaul.sink.fence.guard`.
        batch: number of the batch.
        bound: values for source, fence, owner, first_lsn and last_lsn.
        settings: those of `batch_settings` for this batch.
        servers: those that have the table.
        though_noted: send the batch even if a view is noted to lack it.

    Raises:
        TransientError: a replica has not received the whole batch.
        FatalError: among others, FORGOTTEN or NOTED.
        PipelineError: a view refuses a row, or ClickHouse refuses or does not answer.
    """
    names = clickhouse.rows(query("insertable_columns"), parameters={"table": table})
    columns = ", ".join(clickhouse_identifier(str(name)) for (name,) in names)
    parameters = dict(bound) | {"batch": batch} | memory(clickhouse, table)
    conditions = query("refuse_old", table=table)
    if not though_noted:
        conditions += "\n" + query("refuse_noted", view_gaps=view_gaps)
    if servers.are_replicas:
        asked = query("batch_rows", table=servers.everywhere(table))
        ((parameters["expected"],),) = clickhouse.rows(asked, parameters=parameters, settings=IN_SEQUENCE)
        conditions += "\n" + query("refuse_late", table=table)
    statement = query("push_again", table=table, fence=guard, columns=columns, conditions=conditions)
    try:
        clickhouse.command(statement, parameters=parameters, settings=settings)
    except FatalError as error:
        if not is_thrown(error, _LATE):
            raise
        raise TransientError("a replica of ClickHouse has not received all rows of a batch yet") from error


def is_everywhere(clickhouse: ClickHouse, table: str, servers: Servers, batch: int, bound: Mapping[str, Any]) -> bool:
    """Tell whether every replica has the whole batch, so that it does not matter which of them is asked.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    if not servers.are_replicas:
        return True
    parameters, stored = dict(bound) | {"batch": batch}, servers.everywhere(table)
    ((expected,),) = clickhouse.rows(query("batch_rows", table=stored), parameters=parameters, settings=IN_SEQUENCE)
    rows = clickhouse.rows(query("batch_rows_by_server", table=stored), parameters=parameters, settings=IN_SEQUENCE)
    return len(rows) >= servers.count and {int(row[2]) for row in rows} == {int(expected)}


def memory(clickhouse: ClickHouse, table: str) -> dict[str, int]:
    """Return after how many batches and seconds ClickHouse may have forgotten a token: parameters of `refuse_old`.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    described = tables(clickhouse, [table])[table]
    seconds = described.token_window_s
    return {
        "max_batches": described.token_window // _WINDOW_SHARE,
        "max_seconds": _FOR_EVER_S if seconds is None else seconds // _WINDOW_SHARE,
    }


def batch_settings(source: str, batch: int, mark: str, timeout_s: float) -> dict[str, Any]:
    """Return the settings of every insert of a batch.

    Args:
        source: name of the pipeline.
        batch: number of the batch, of which the token is made.
        mark: identifies the lane's inserts among the running queries.
        timeout_s: time after which ClickHouse ends the statement, in seconds.
    """
    return {
        "insert_deduplicate": 1,
        "insert_deduplication_token": f"outhaul/{source}/{batch:016x}",
        # A view checks the token for itself: without this, it lacks what the table already has.
        "deduplicate_blocks_in_dependent_materialized_views": 1,
        "materialized_views_ignore_errors": 0,
        "parallel_view_processing": 0,
        # ClickHouse acknowledges an asynchronous insert before it is stored, or deduplicates it by other rules.
        "async_insert": 0,
        "wait_end_of_query": 1,
        # A replica that has not received everything does not judge by what it has.
        **IN_SEQUENCE,
        # ClickHouse reads a batch in pieces. With these settings it makes one block of them, of up to as many rows as a
        # batch may have, and so one part for each month. The token of a block depends on the number of its pieces.
        "max_block_size": _BLOCK_ROWS,
        "min_insert_block_size_rows": _BLOCK_ROWS,
        "min_insert_block_size_bytes": 0,
        "max_bytes_before_external_sort": 0,
        # One stream of rows becomes one part; more threads would only cost time to start and stop.
        "max_threads": 1,
        "max_insert_threads": 1,
        # The rows of a batch are never versions of each other, so a merge before the insert would be useless work.
        "optimize_on_insert": 0,
        # A batch may contain events of many months.
        "max_partitions_per_insert_block": 0,
        # A NULL for a column that is not Nullable is refused and set aside, not replaced by an empty value.
        "insert_null_as_default": 0,
        "input_format_null_as_default": 0,
        "max_execution_time": int(timeout_s),
        "log_comment": mark,
    }
