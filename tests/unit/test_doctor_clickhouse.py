"""The doctor's findings about ClickHouse, each on both sides of its bound."""

from dataclasses import replace

import pytest

from outhaul.cdc_reader.operate.doctor import clickhouse_grants, clickhouse_tables
from outhaul.cdc_reader.operate.doctor.finding import State
from outhaul.sink import schema
from outhaul.sink.errors import FatalError
from outhaul.sink.replicas import Servers
from outhaul.sink.schema import Table
from outhaul.sink.settings import Settings

EVENTS = Table(
    name="event_log",
    engine="MergeTree",
    definition="MergeTree PARTITION BY toYYYYMM(event_date_time) ORDER BY (event_type, event_date_time, id) "
    "SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 8192",
    partition_key="toYYYYMM(event_date_time)",
    sorting_key="event_type, event_date_time, id",
)
FIRST, LAST = "1900-01-01 00:00:00.000000", "2299-12-31 23:59:59.999999"
NAMES = ("event_log", "event_log_dead_letters", "event_log_epochs")


@pytest.mark.parametrize(
    ("version", "context", "state"),
    [
        ("22.7.4.16", "String", State.FAIL),
        ("22.8.1.1", "String", State.PASS),
        ("26.5.1.1", "String", State.PASS),
        ("25.2.1.1", "JSON", State.FAIL),
        ("25.3.1.1", "JSON", State.PASS),
    ],
)
def test_a_version_has_the_types_that_are_asked_of_it(version: str, context: str, state: State) -> None:
    assert clickhouse_tables.version(version, context).state is state


@pytest.mark.parametrize(
    ("engine", "sorting_key", "state"),
    [
        ("ReplacingMergeTree", "event_type, event_date_time, id", State.PASS),
        ("ReplicatedReplacingMergeTree", "id", State.PASS),
        ("SharedReplacingMergeTree", "cdc_source, cdc_lsn, cdc_ordinal", State.PASS),
        ("ReplacingMergeTree", "event_type, event_date_time", State.FAIL),
        ("ReplacingMergeTree", "cdc_source, cdc_lsn", State.FAIL),
        ("MergeTree", "event_type, event_date_time", State.PASS),
        ("ReplicatedMergeTree", "cdc_lsn", State.PASS),
        ("SharedMergeTree", "", State.PASS),
        ("ReplacingMergeTree", "event_type, intDiv(id, 10)", State.FAIL),
        ("CollapsingMergeTree", "id", State.FAIL),
        ("CoalescingMergeTree", "cdc_source, cdc_lsn, cdc_ordinal", State.FAIL),
        ("SummingMergeTree", "id", State.FAIL),
        ("ReplicatedAggregatingMergeTree", "id", State.FAIL),
        ("Distributed", "", State.FAIL),
        ("Null", "", State.FAIL),
        ("Buffer", "", State.FAIL),
    ],
)
def test_an_engine_keeps_every_event_by_itself(engine: str, sorting_key: str, state: State) -> None:
    assert clickhouse_tables.engine(replace(EVENTS, engine=engine, sorting_key=sorting_key)).state is state


@pytest.mark.parametrize(
    ("engine", "sorting_key", "state"),
    [
        ("ReplacingMergeTree", "event_type, event_date_time, id", State.FAIL),
        ("ReplicatedReplacingMergeTree", "cdc_lsn, cdc_ordinal", State.FAIL),
        ("ReplacingMergeTree", "cdc_source, event_type, event_date_time, id", State.PASS),
        ("ReplacingMergeTree", "cdc_source, cdc_lsn, cdc_ordinal", State.PASS),
        ("MergeTree", "event_type, event_date_time, id", State.PASS),
    ],
)
def test_the_key_of_a_replacing_table_that_two_sources_share_has_the_source(
    engine: str, sorting_key: str, state: State
) -> None:
    found = clickhouse_tables.engine(replace(EVENTS, engine=engine, sorting_key=sorting_key), other="theirs")
    assert (found.state, "'theirs'" in found.found) == (state, state is State.FAIL)


@pytest.mark.parametrize(
    ("sorting_key", "keys", "apart"),
    [
        ("event_type, event_date_time, id", [{"id"}], True),
        ("`event_type`, `event_date_time`, `id`", [{"id"}], True),
        ("event_type, event_date_time, id", [{"event_key"}, {"id", "event_date_time"}], True),
        ("event_type, event_date_time, id", [], False),
        ("event_type, event_date_time, id", [{"event_key"}, {"id", "environment"}], False),
        ("event_type, intDiv(id, 2)", [{"id"}], False),
        ("cdc_source, cdc_lsn, cdc_ordinal", [], True),
    ],
)
def test_rows_with_equal_keys_are_ruled_out_by_a_unique_index_within_the_key(
    sorting_key: str, keys: list[set[str]], apart: bool
) -> None:
    table = replace(EVENTS, engine="ReplacingMergeTree", sorting_key=sorting_key)
    assert table.keeps_apart(map(frozenset, keys)) is apart
    assert replace(table, engine="MergeTree").keeps_apart([])


def test_a_table_is_migrated_with_its_key_and_settings_and_without_the_arguments_of_its_engine() -> None:
    path = "'/clickhouse/tables/{uuid}/(1)', '{replica}', version"
    old = replace(
        EVENTS,
        engine="ReplicatedReplacingMergeTree",
        definition=f"ReplicatedReplacingMergeTree({path}) PARTITION BY toYYYYMM(t) ORDER BY (id) SETTINGS a = 1",
    )
    assert schema.migration(old, has_batches=True)[0] == (
        "CREATE TABLE `event_log_new` AS `event_log` ENGINE = ReplicatedMergeTree PARTITION BY toYYYYMM(t) "
        "ORDER BY (id) SETTINGS a = 1"
    )
    assert schema.migration(EVENTS, has_batches=False)[0].startswith(
        "CREATE TABLE `event_log_new` AS `event_log` ENGINE = MergeTree PARTITION BY toYYYYMM(event_date_time) ORDER BY"
    )


@pytest.mark.parametrize(
    ("engine", "setting", "state"),
    [
        ("MergeTree", "", State.FAIL),
        ("MergeTree", "non_replicated_deduplication_window = 0", State.FAIL),
        ("MergeTree", "non_replicated_deduplication_window = 8", State.FAIL),
        ("MergeTree", "non_replicated_deduplication_window = 9", State.WARN),
        ("MergeTree", "non_replicated_deduplication_window = 800", State.PASS),
        ("ReplicatedMergeTree", "", State.WARN),
        ("ReplicatedMergeTree", "replicated_deduplication_window = 0", State.FAIL),
        ("ReplicatedMergeTree", "replicated_deduplication_window_seconds = 0", State.FAIL),
        ("ReplicatedMergeTree", "replicated_deduplication_window_seconds = 604799", State.WARN),
        ("ReplicatedMergeTree", "replicated_deduplication_window_seconds = 604800", State.PASS),
        ("SharedMergeTree", "replicated_deduplication_window_seconds = 604800", State.PASS),
        ("SharedMergeTree", "replicated_deduplication_window_seconds = 0", State.FAIL),
        ("MergeTree", "replicated_deduplication_window = 800", State.FAIL),
    ],
)
def test_more_tokens_are_remembered_than_batches_are_in_flight(engine: str, setting: str, state: State) -> None:
    definition = f"{engine} ORDER BY id SETTINGS {setting}, index_granularity = 8192"
    found = clickhouse_tables.window(replace(EVENTS, engine=engine, definition=definition), max_in_flight=8)
    assert found.state is state
    if state is State.FAIL:
        own, rest = {
            "Mer": ("non_replicated_", ""),
            "Rep": ("replicated_", ", replicated_deduplication_window_seconds = 604800  -- on each replica"),
            "Sha": ("replicated_", ", replicated_deduplication_window_seconds = 604800"),
        }[engine[:3]]
        assert found.fix == f"ALTER TABLE `event_log` MODIFY SETTING {own}deduplication_window = 10000{rest}"


@pytest.mark.parametrize(
    ("key", "state"),
    [
        ("toYYYYMM(event_date_time)", State.PASS),
        ("toYear(event_date_time)", State.PASS),
        ("", State.PASS),
        ("toDate(event_date_time)", State.WARN),
        ("event_type, toYYYYMM(event_date_time)", State.WARN),
        ("toYYYYMM(cdc_ingested_at)", State.WARN),
    ],
)
def test_a_partition_is_a_month_and_the_same_for_every_sending(key: str, state: State) -> None:
    assert clickhouse_tables.partition_key(replace(EVENTS, partition_key=key)).state is state


def test_both_tables_are_checked_and_named() -> None:
    letters = replace(EVENTS, name="event_log_dead_letters", engine="Log", definition="Log")
    found = {one.check: one.state for one in clickhouse_tables.engines(EVENTS, letters, Settings())}
    assert found == {
        "engine": State.PASS,
        "tokens": State.PASS,
        "dead letters' engine": State.FAIL,
        "dead letters' tokens": State.FAIL,
        "partition key": State.PASS,
    }


@pytest.mark.parametrize(
    ("most", "state"),
    [(0, State.PASS), (999, State.PASS), (1000, State.WARN), (2999, State.WARN), (3000, State.FAIL)],
)
def test_parts_are_far_from_where_inserts_are_refused(most: int, state: State) -> None:
    assert clickhouse_tables.parts(clickhouse_tables.Parts(most, 1000, 3000)).state is state


def test_half_the_limit_is_near_enough_where_inserts_are_never_delayed() -> None:
    assert clickhouse_tables.parts(clickhouse_tables.Parts(149, 1000, 300)).state is State.PASS
    assert clickhouse_tables.parts(clickhouse_tables.Parts(150, 1000, 300)).state is State.WARN
    assert clickhouse_tables.parts(None).state is State.WARN


@pytest.mark.parametrize(
    ("first", "last", "state"),
    [
        (FIRST, LAST, State.PASS),
        (FIRST + "0", LAST + "0", State.PASS),
        (FIRST[:-3], LAST[:-3], State.WARN),
        (FIRST, "an error (code 407)", State.WARN),
        (FIRST, "2299-12-31 23:59:60.000000", State.FAIL),
        ("1970-01-01 00:00:00", "2106-02-07 06:28:15", State.FAIL),
        ("an error (code 407)", "2027-10-18 10:43:27", State.FAIL),
    ],
)
def test_a_time_is_kept_cut_or_refused_but_never_another(first: str, last: str, state: State) -> None:
    assert clickhouse_tables.time_range("DateTime64", {FIRST: first, LAST: last}).state is state


def test_replicas_are_fine_if_a_cluster_reaches_them_all() -> None:
    found = clickhouse_tables.replicas(Servers("logs", "events", 3))
    assert (found.state, found.found) == (State.PASS, "3, all reached through cluster 'logs'")
    refused = clickhouse_tables.replicas(FatalError("not allowed", todo="GRANT REMOTE"))
    assert (refused.state, refused.found, refused.fix) == (State.FAIL, "not allowed", "GRANT REMOTE")


def test_dead_letters_are_worth_a_look() -> None:
    assert clickhouse_tables.dead_letters(0, "letters").state is State.PASS
    assert clickhouse_tables.dead_letters(1, "letters").state is State.WARN
    assert clickhouse_tables.dead_letters(None, "letters").state is State.WARN


def judged(**changes: bool | None) -> dict[str, tuple[State, str]]:
    """Judge a user who has all rights, but for those named by their privilege and table."""
    held = {
        right: changes.get("_".join(right).replace(" ", "_").replace(".", "_"), True)
        for right in clickhouse_grants.wanted(NAMES, NAMES[:1])
    }
    found = clickhouse_grants.judge(clickhouse_grants.Rights("app", "logs", bool(changes.get("readonly")), held))
    return {one.check: (one.state, one.fix) for one in found}


def test_a_user_with_all_rights_has_nothing_to_mend() -> None:
    assert judged() == {
        "read and write": (State.PASS, ""),
        "running inserts": (State.PASS, ""),
        "add columns": (State.PASS, ""),
    }


def test_a_right_that_is_missing_comes_with_its_grant() -> None:
    assert judged(INSERT_event_log_epochs=False)["read and write"] == (
        State.FAIL,
        "GRANT INSERT ON `logs`.`event_log_epochs` TO `app`;",
    )
    assert judged(SELECT_event_log=False)["read and write"][0] is State.FAIL
    assert judged(SELECT_system_processes=False)["running inserts"] == (
        State.WARN,
        "GRANT SELECT ON `system`.`processes` TO `app`;",
    )
    assert judged(ALTER_ADD_COLUMN_event_log=False)["add columns"] == (
        State.WARN,
        "GRANT ALTER ADD COLUMN ON `logs`.`event_log` TO `app`;",
    )


def test_a_server_that_does_not_show_its_grants_and_a_readonly_profile_are_named() -> None:
    assert judged(INSERT_event_log=None)["read and write"] == (State.WARN, "SHOW GRANTS FOR `app`")
    assert judged(readonly=True)["read-only"][0] is State.FAIL
