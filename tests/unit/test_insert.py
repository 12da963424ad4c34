"""The text of the one INSERT, and the settings that go with it."""

import pyarrow as pa

from sink.insert import settings, statement
from tests.unit.batches import batch_of, message_of


def test_the_statement_names_columns_fence_and_what_is_held_only_when_sent_again() -> None:
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), metadata={"clickhouse": "Int64"}),
            pa.field("odd `name'", pa.binary(), metadata={"clickhouse": "Nullable(String)"}),
            pa.field("event_date_time", pa.timestamp("us"), metadata={"clickhouse": "Nullable(DateTime64(6, 'UTC'))"}),
        ]
    )
    first = statement("event_log", "event_log_epochs", schema, again=False)
    assert "INSERT INTO event_log (`id`, `odd \\`name'`, `event_date_time`, cdc_source)" in first
    assert "coalesce(event_date_time, cdc_committed_at)" in first
    assert "throwIf" in first
    assert "NOT IN" not in first
    assert "NOT IN" in statement("event_log", "event_log_epochs", schema, again=True)


def test_an_insert_is_synchronous_deduplicated_and_bounded() -> None:
    found = settings(message_of(batch_of([1])), 60.0)
    assert found["async_insert"] == 0
    assert found["insert_deduplication_token"]
    assert found["max_execution_time"] == 60
