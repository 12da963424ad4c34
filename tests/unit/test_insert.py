"""The text of the one INSERT, what it binds, and the settings that go with it."""

import pyarrow as pa
import pytest

from outhaul.sink.batch import Packer, encode
from outhaul.sink.errors import ForeignMessageError
from outhaul.sink.insert import Contents, Target, _leave_out, _refuse, contents_of, parameters, settings, statement
from outhaul.sink.position import Lsn, Position
from tests.unit.batches import batch_of, message_of

TIME = pa.timestamp("us", "UTC")


def records(times: list[int | None], committed: int = 5, kind: pa.DataType = TIME) -> pa.RecordBatch:
    fields = [
        pa.field("odd `name'", pa.binary(), metadata={"clickhouse": "Nullable(String)"}),
        pa.field("event_date_time", kind, metadata={"clickhouse": "Nullable(DateTime64(6, 'UTC'))"}),
        pa.field("cdc_committed_at", TIME, metadata={"clickhouse": "DateTime64(6, 'UTC')"}),
    ]
    columns = [pa.array([b"x"] * len(times)), pa.array(times, kind), pa.array([committed] * len(times), TIME)]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


TARGET = Target("event_log", "letters", "gaps", "1", 60.0)


def test_the_statement_names_columns_fence_and_what_is_held() -> None:
    contents = contents_of(encode(records([1])))
    text = statement("event_log", TARGET, contents, _refuse(TARGET, contents))
    columns = "`odd \\`name'`, `event_date_time`, `cdc_committed_at`, cdc_source, cdc_batch"
    assert f"INSERT INTO `event_log` ({columns})" in text
    assert "coalesce(event_date_time, cdc_committed_at)" in text
    assert "WHERE 1" in text
    assert text.count("throwIf((cdc_lsn, cdc_ordinal) IN") == 2
    assert text.count("AND event_date_time BETWEEN") == 1
    assert "cdc_batch !=" not in text
    assert (
        statement("event_log", TARGET, contents, _refuse(TARGET, contents, by_others=True)).count("cdc_batch !=") == 1
    )
    bare = Contents(records([1]).schema)
    letters = statement("letters", TARGET, bare, _leave_out(TARGET.tables(), TARGET, bare))
    assert letters.count("NOT IN") == 2
    assert "cdc_batch" not in letters
    assert "AND event_date_time BETWEEN" not in letters


@pytest.mark.parametrize(("times", "ends"), [([3, 1, 2], (1, 3)), ([7, None], (5, 7)), ([None, None], (5, 5))])
def test_events_lie_between_the_least_and_the_greatest_time_they_will_have(
    times: list[int | None], ends: tuple[int, int]
) -> None:
    contents = contents_of(encode(records(times)))
    assert (contents.from_us, contents.to_us) == ends


def test_the_times_of_all_pieces_of_a_batch_count() -> None:
    """A row at a time that is not looked at would not be found where it is held, and be stored again."""
    packer = Packer("outhaul", "event_log", records([]).schema)
    for number, times in enumerate(([5], [1, 9], [7])):
        packer.add(records(list(times)), Position(Lsn(number + 1), 0), Position(Lsn(number + 1), len(times) - 1))
    contents = contents_of(packer.finish().payload)
    assert (contents.from_us, contents.to_us) == (1, 9)


def test_times_of_another_kind_are_not_compared() -> None:
    contents = contents_of(encode(records([1], kind=pa.int64())))
    assert contents.from_us is None
    assert "AND event_date_time BETWEEN" not in _refuse(TARGET, contents)


@pytest.mark.parametrize("length", [0, 40, -60])
def test_a_damaged_payload_is_foreign(length: int) -> None:
    with pytest.raises(ForeignMessageError):
        contents_of(encode(records(list(range(100))))[:length])


def test_ordinals_are_bound_within_one_transaction_only() -> None:
    message, contents = message_of(batch_of([1, 2, 3])), Contents(records([]).schema)
    bound = parameters(message, contents)
    assert (bound["first_ordinal"], bound["last_ordinal"]) == (0, 2)
    assert "from_us" not in bound


def test_an_insert_is_synchronous_deduplicated_and_bounded() -> None:
    found = settings(message_of(batch_of([1])), TARGET)
    assert found["async_insert"] == 0
    assert found["insert_deduplication_token"]
    assert found["max_execution_time"] == 60
