"""Kind of statement -> the settings that each statement of outhaul names, since a user's profile may differ.

Pure. ClickHouse applies the profile of the user to every statement, so an admin's profile could change what a statement
means: return a part of the rows, hide rows, store a batch twice, or turn NULL into an empty value. So each statement
names these settings itself. A setting that the server does not list is left out: it has no effect there.

Every name in `system.settings` of ClickHouse 26.5 was considered. Not pinned is what can only make a statement slower,
or make it fail with an error (limits of rows, bytes, memory and time, `force_primary_key`, `readonly`), and what
ClickHouse reads before the statement (`dialect`, `max_query_size`): an error is seen, and names the setting.
A materialized view runs with the settings of the insert. What a view needs goes into the SETTINGS clause of its query.

Source: https://clickhouse.com/docs/operations/settings/settings
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN = "insert_deduplication_token"  # noqa: S105 - the name of a setting


class On(Flag):
    """Statements that bring a setting along."""

    READ = auto()
    INSERT = auto()
    INSERT_WITH_TOKEN = auto()
    ALL = READ | INSERT


@dataclass(frozen=True, slots=True)
class Pinned:
    """One setting, its value, and what the statement would do with another value."""

    name: str
    value: int | str
    on: On
    why: str


_PART = "ends at the profile's limit, and the rows found so far look like all rows"
_MODES = (
    "read_overflow_mode",
    "read_overflow_mode_leaf",
    "group_by_overflow_mode",
    "sort_overflow_mode",
    "result_overflow_mode",
    "distinct_overflow_mode",
    "set_overflow_mode",
    "join_overflow_mode",
    "transfer_overflow_mode",
    "timeout_overflow_mode",
    "timeout_overflow_mode_leaf",
)

PINNED = (
    # All rows, and only those of the statement.
    *(Pinned(name, "throw", On.ALL, _PART) for name in _MODES),
    Pinned("limit", 0, On.ALL, "returns the first rows only"),
    Pinned("offset", 0, On.ALL, "leaves out the first rows"),
    Pinned("max_result_rows", 0, On.ALL, "fails, or with `break` ends early, at a size that is usual for outhaul"),
    Pinned("max_result_bytes", 0, On.ALL, "as max_result_rows"),
    Pinned("final", 0, On.ALL, "hides rows with equal sorting keys, or fails for engines without FINAL"),
    Pinned("additional_result_filter", "", On.ALL, "filters the result"),
    Pinned("additional_table_filters", "{}", On.ALL, "hides rows of a table, so that a stored row looks missing"),
    Pinned("use_query_cache", 0, On.ALL, "returns an older result: a fence or a position of the past"),
    Pinned("partial_result_on_first_cancel", 0, On.ALL, "a cancelled statement returns a part of the rows"),
    Pinned("skip_unavailable_shards", 0, On.ALL, "leaves out servers that do not answer"),
    Pinned("ignore_cold_parts_seconds", 0, On.ALL, "hides rows that have just been stored (ClickHouse Cloud)"),
    Pinned("apply_deleted_mask", 1, On.ALL, "shows rows that were deleted"),
    Pinned("apply_patch_parts", 1, On.ALL, "shows rows as they were before an update"),
    Pinned("enable_parallel_replicas", 0, On.ALL, "reads from several replicas, of which one may lag"),
    Pinned("allow_experimental_parallel_reading_from_replicas", 0, On.ALL, "older name of enable_parallel_replicas"),
    Pinned("max_parallel_replicas", 1, On.ALL, "with a sampling or custom key, each replica reads a share of the rows"),
    Pinned("implicit_table_at_top_level", "", On.ALL, "a SELECT without FROM returns one row per row of that table"),
    Pinned("extremes", 0, On.READ, "adds rows with the least and the greatest values to the result"),
    # What expressions mean.
    Pinned(
        "aggregate_functions_null_for_empty",
        0,
        On.ALL,
        "the owner in an empty epochs table is NULL, the comparison with it too, and the insert stores nothing",
    ),
    Pinned(
        "empty_result_for_aggregation_by_empty_set",
        0,
        On.ALL,
        "an aggregate without rows returns no row: the fence is NULL, and the insert stores nothing",
    ),
    Pinned("transform_null_in", 0, On.ALL, "NULL IN (NULL) is true"),
    Pinned("prefer_column_name_to_alias", 0, On.ALL, "a column of the table replaces an alias of the same name"),
    Pinned("join_use_nulls", 0, On.ALL, "a join without a match returns NULL in place of the type's default"),
    Pinned("cast_keep_nullable", 0, On.ALL, "casts return Nullable types"),
    Pinned("decimal_check_overflow", 1, On.ALL, "a decimal that is too large wraps around"),
    Pinned("session_timezone", "", On.ALL, "times without a time zone are read and written in that zone"),
    Pinned("date_time_input_format", "best_effort", On.ALL, "a time in a text is read by other rules"),
    Pinned("cast_string_to_date_time_mode", "best_effort", On.ALL, "a text is cast to a time by other rules"),
    Pinned("cast_string_to_dynamic_use_inference", 1, On.ALL, "a text in a Dynamic column keeps the type String"),
    # The form of a result, as the driver and pyarrow read it.
    Pinned("output_format_arrow_string_as_string", 1, On.READ, "texts arrive as bytes"),
    Pinned("output_format_arrow_low_cardinality_as_dictionary", 0, On.READ, "texts arrive as numbers of a dictionary"),
    Pinned("output_format_native_encode_types_in_binary_format", 0, On.READ, "the driver cannot read the result"),
    Pinned("low_cardinality_allow_in_native_format", 1, On.READ, "the type of a column is not the declared one"),
    # Values are stored as they are, or refused and set aside.
    Pinned("insert_null_as_default", 0, On.INSERT, "NULL becomes an empty value, and is not refused"),
    Pinned("input_format_null_as_default", 0, On.INSERT, "as insert_null_as_default, in the payload"),
    Pinned("cast_ipv4_ipv6_default_on_conversion_error", 0, On.INSERT, "a text that is no address becomes 0.0.0.0"),
    Pinned("input_format_ipv4_default_on_conversion_error", 0, On.INSERT, "a text that is no address becomes 0.0.0.0"),
    Pinned("input_format_ipv6_default_on_conversion_error", 0, On.INSERT, "a text that is no address becomes ::"),
    Pinned("input_format_arrow_case_insensitive_column_matching", 0, On.INSERT, "columns `a` and `A` are mixed up"),
    Pinned("input_format_connection_handling", 0, On.INSERT, "a request that was cut off is stored as far as it came"),
    # One block for each batch, stored before ClickHouse answers.
    Pinned("async_insert", 0, On.INSERT, "ClickHouse answers before it has stored, and deduplicates by other rules"),
    Pinned("wait_for_async_insert", 1, On.INSERT, "if inserts are made asynchronous nevertheless, as async_insert"),
    Pinned("distributed_foreground_insert", 1, On.INSERT, "a Distributed table answers before it has stored"),
    Pinned("insert_distributed_sync", 1, On.INSERT, "older name of distributed_foreground_insert"),
    Pinned("implicit_transaction", 0, On.INSERT, "the rows become visible later than the answer"),
    Pinned("max_partitions_per_insert_block", 0, On.INSERT, "refuses a batch with events of many months"),
    Pinned("max_insert_threads", 1, On.INSERT, "makes several blocks of a batch, and each has a token of its own"),
    Pinned("use_strict_insert_block_limits", 0, On.INSERT, "as max_insert_threads"),
    Pinned("max_insert_block_size_bytes", 0, On.INSERT, "as max_insert_threads"),
    Pinned("input_format_max_block_size_bytes", 0, On.INSERT, "as max_insert_threads"),
    Pinned("input_format_max_block_wait_ms", 0, On.INSERT, "as max_insert_threads"),
    Pinned("min_insert_block_size_rows_for_materialized_views", 0, On.INSERT, "makes several blocks for a view"),
    Pinned("min_insert_block_size_bytes_for_materialized_views", 0, On.INSERT, "makes several blocks for a view"),
    # A batch that is sent again is stored once, in the table and in its views.
    Pinned("insert_deduplicate", 1, On.INSERT_WITH_TOKEN, "a batch that is sent again is stored twice"),
    Pinned("deduplicate_insert", "enable", On.INSERT_WITH_TOKEN, "beats insert_deduplicate"),
    Pinned(
        "deduplicate_insert_select",
        "force_enable",
        On.INSERT_WITH_TOKEN,
        "beats both; this value makes ClickHouse refuse an insert that it would not deduplicate",
    ),
    Pinned(
        "deduplicate_blocks_in_dependent_materialized_views",
        1,
        On.INSERT_WITH_TOKEN,
        "a batch that is sent again is stored twice in the views",
    ),
    Pinned("materialized_views_ignore_errors", 0, On.INSERT, "a view that fails misses rows, and nobody is told"),
    Pinned(
        "ignore_materialized_views_with_dropped_target_table", 0, On.INSERT, "a view without its table loses the rows"
    ),
)


def pinned(on: On, given: Mapping[str, object]) -> dict[str, object]:
    """Return the settings of a statement of this kind: the pinned ones, and those given, which replace pinned ones."""
    kinds = on | On.INSERT_WITH_TOKEN if on is On.INSERT and TOKEN in given else on
    return {one.name: one.value for one in PINNED if one.on & kinds} | dict(given)
