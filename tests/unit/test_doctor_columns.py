"""The doctor's findings about the columns of both sides."""

import pytest

from outhaul.cdc_reader.capture.column_types import Oid
from outhaul.cdc_reader.operate.doctor.column_match import OutboxColumn, StoredColumn, judge
from outhaul.cdc_reader.operate.doctor.finding import Finding, State
from outhaul.sink.schema import Table

MONEY, DOMAIN = 790, 16400
TABLE = Table("event_log", "ReplacingMergeTree", "", "toYYYYMM(event_date_time)", "event_type, event_date_time, id")
OUTBOX = [
    OutboxColumn("id", Oid.INT8, "bigint", nullable=False, published=True),
    OutboxColumn("event_type", Oid.VARCHAR, "character varying(255)", nullable=False, published=True),
    OutboxColumn("event_date_time", Oid.TIMESTAMPTZ, "timestamp with time zone", nullable=True, published=True),
    OutboxColumn("environment", Oid.VARCHAR, "character varying(255)", nullable=False, published=True),
    OutboxColumn("event_context", Oid.JSONB, "jsonb", nullable=False, published=True),
    OutboxColumn("metadata_version", Oid.INT8, "bigint", nullable=True, published=True),
    OutboxColumn("processed", Oid.BOOL, "boolean", nullable=False, published=True),
]
STORED = [
    StoredColumn("id", "Int64", ""),
    StoredColumn("event_type", "LowCardinality(String)", ""),
    StoredColumn("event_date_time", "DateTime64(6, 'UTC')", ""),
    StoredColumn("environment", "LowCardinality(String)", ""),
    StoredColumn("event_context", "String", ""),
    StoredColumn("metadata_version", "Nullable(Int64)", ""),
    StoredColumn("cdc_source", "LowCardinality(String)", ""),
    StoredColumn("cdc_lsn", "UInt64", ""),
    StoredColumn("cdc_ordinal", "UInt64", ""),
    StoredColumn("cdc_committed_at", "DateTime64(6, 'UTC')", ""),
]


def found(outbox: list[OutboxColumn], stored: list[StoredColumn]) -> dict[str, Finding]:
    return {finding.check: finding for finding in judge(outbox, stored, TABLE)}


def stored_as(name: str, kind: str, default_kind: str = "") -> list[StoredColumn]:
    return [StoredColumn(name, kind, default_kind) if one.name == name else one for one in STORED]


def with_column(name: str, oid: int, kind: str, *, nullable: bool = True, published: bool = True) -> list[OutboxColumn]:
    return [*(one for one in OUTBOX if one.name != name), OutboxColumn(name, oid, kind, nullable, published)]


def test_the_tables_that_setup_makes_fit_and_the_processed_flag_is_ignored() -> None:
    findings = found(OUTBOX, STORED)
    assert {one.state for one in findings.values()} == {State.PASS}
    assert findings.keys() == {"id", "types"}


def test_an_id_that_is_no_integer_or_is_not_there_fails() -> None:
    text = found(with_column("id", Oid.UUID, "uuid"), STORED)["id"]
    assert (text.state, "uuid" in text.found) == (State.FAIL, True)
    assert found([one for one in OUTBOX if one.name != "id"], STORED)["id"].state is State.FAIL
    assert found(with_column("id", DOMAIN, "event_id"), STORED)["id"].state is State.FAIL
    assert found(with_column("id", Oid.INT4, "integer", nullable=False), STORED)["id"].state is State.PASS


def test_columns_that_come_as_text_or_are_new_or_are_hidden_are_named() -> None:
    outbox = [
        *with_column("amount", MONEY, "money"),
        OutboxColumn("tenant", Oid.UUID, "uuid", nullable=True, published=True),
        OutboxColumn("secret", Oid.TEXT, "text", nullable=True, published=False),
    ]
    findings = found(outbox, STORED)
    assert findings["stored as text"].found.startswith("amount (money)")
    assert findings["new columns"].found == "amount (String), tenant (UUID): the next batch adds them to ClickHouse"
    assert findings["new columns"].state is State.PASS
    assert (findings["not published"].state, "secret" in findings["not published"].found) == (State.WARN, True)
    assert "column secret" not in findings


def test_a_column_that_may_be_null_needs_one_that_can_be() -> None:
    refused = found(OUTBOX, stored_as("metadata_version", "Int64"))["column metadata_version"]
    assert refused.state is State.WARN
    assert refused.fix == "ALTER TABLE `event_log` MODIFY COLUMN `metadata_version` Nullable(Int64)"
    outbox = with_column("metadata_version", Oid.INT8, "bigint", nullable=False)
    assert "column metadata_version" not in found(outbox, stored_as("metadata_version", "Int64"))


def test_a_column_of_a_key_is_not_altered_but_created_again() -> None:
    narrow = found(OUTBOX, stored_as("id", "Int32"))["column id"]
    assert narrow.state is State.FAIL
    assert narrow.fix.startswith("RENAME TABLE `event_log` TO `event_log_old`")


def test_a_computed_column_takes_nothing() -> None:
    assert found(OUTBOX, stored_as("environment", "String", "MATERIALIZED"))["column environment"].state is State.FAIL


@pytest.mark.parametrize("name", ["cdc_source", "cdc_lsn", "cdc_ordinal", "cdc_committed_at"])
def test_a_table_without_a_position_takes_no_rows(name: str) -> None:
    missing = found(OUTBOX, [one for one in STORED if one.name != name])[f"column {name}"]
    assert missing.state is State.FAIL
    assert f"ADD COLUMN `{name}`" in missing.fix
    if name != "cdc_source":
        assert found(OUTBOX, stored_as(name, "UInt32"))[f"column {name}"].state is State.FAIL


def test_what_the_outbox_lacks_is_named() -> None:
    lacking = found([one for one in OUTBOX if one.name != "environment"], STORED)["not in the outbox"]
    assert (lacking.state, "environment" in lacking.found) == (State.WARN, True)
