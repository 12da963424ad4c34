"""What reader and sink tell each other: positions, tokens, messages, reports, errors."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outhaul.sink.batch import Batch, Message, Packer, decode, encode
from outhaul.sink.errors import Exit, FatalError, FrameError, PipelineError, PoisonError, TransientError
from outhaul.sink.position import Lsn, Position, parse_position
from outhaul.sink.report import Outcome, Report
from tests.unit.batches import pack

FIRST = Position(Lsn(1), 0)
LAST = Position(Lsn(2), 0)


def records(*values: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array(values, pa.int64())], ["id"])


def batch(
    *values: int,
    first: Position = FIRST,
    last: Position = LAST,
    source: str = "outhaul",
    table: str = "event_log",
) -> Batch:
    return pack(source, table, records(*values), first, last)


def message(**changes: Any) -> Message:
    made = Message.of(batch(1, 2), source="outhaul", epoch=3, owner="abc", sequence=4, attempt=0)
    return replace(made, **changes)


@given(st.integers(0, 2**64 - 1))
def test_an_lsn_reads_back_what_it_prints(value: int) -> None:
    assert Lsn.parse(str(Lsn(value))) == value


@pytest.mark.parametrize("text", ["", "1", "1/", "/1", "g/1", "1/1/1", "-1/0"])
def test_what_is_no_lsn_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Lsn.parse(text)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_a_position_reads_back_what_it_prints(lsn: int, ordinal: int) -> None:
    position = Position(Lsn(lsn), ordinal)
    assert parse_position(str(position)) == position


def test_a_batch_packed_in_pieces_is_one_batch_of_all_rows_and_positions() -> None:
    packer = Packer("outhaul", "event_log", records(1).schema)
    packer.add(records(1, 2), FIRST, FIRST)
    packer.add(records(3), LAST, LAST)
    made = packer.finish()
    assert (made.first, made.last, made.rows) == (FIRST, LAST, 3)
    assert decode(made.payload).equals(records(1, 2, 3))
    assert Message.of(made, source="outhaul", epoch=1, owner="a", sequence=0, attempt=0).announces(made.payload)


def test_there_is_no_batch_without_rows() -> None:
    with pytest.raises(ValueError, match="without rows"):
        Packer("outhaul", "event_log", records(1).schema).finish()


def test_the_token_depends_on_everything_that_names_the_batch() -> None:
    tokens = {
        batch(1, 2).token,
        batch(1, 3).token,
        batch(1, 2, source="other").token,
        batch(1, 2, table="event_log_dead_letters").token,
        batch(1, 2, first=Position(Lsn(1), 1)).token,
        batch(1, 2, last=Position(Lsn(2), 1)).token,
    }
    assert len(tokens) == 6
    assert batch(1, 2).token == batch(1, 2).token


def test_a_message_announces_its_payload_and_no_other() -> None:
    assert message().announces(batch(1, 2).payload)
    assert not message().announces(encode(records(1, 3)))
    assert not message().announces(batch(1, 2).payload[:-1])
    assert not message(rows=3).announces(batch(1, 2).payload)


def test_a_message_survives_json() -> None:
    assert Message.from_json(message().to_json()) == message()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.pop("token"),
        lambda data: data.update(extra=1),
        lambda data: data.update(rows="2"),
        lambda data: data.update(epoch=True),
        lambda data: data.update(version=99),
        lambda data: data.update(first=None),
    ],
)
def test_a_message_of_another_shape_is_refused(damage: Callable[[dict[str, Any]], object]) -> None:
    data = message().to_json()
    damage(data)
    with pytest.raises(FatalError):
        Message.from_json(data)


@pytest.mark.parametrize("data", [None, [], "x", 1, {}])
def test_what_is_no_message_is_refused(data: object) -> None:
    with pytest.raises(FatalError):
        Message.from_json(data)


def test_a_report_reads_back_what_it_wrote() -> None:
    report = Report(Outcome.FATAL, "t", 5, 2, "no table", "run setup", 22, 60)
    assert Report.from_json(report.to_json()) == report


@given(st.binary(max_size=60))
def test_no_line_on_the_stored_list_can_break_the_reader(line: bytes) -> None:
    assert Report.from_json(line) is None or isinstance(Report.from_json(line), Report)


@pytest.mark.parametrize("kind", [TransientError, PoisonError, FatalError, FrameError])
def test_errors_pickle_whole(kind: type[PipelineError]) -> None:
    error = kind("it broke", code=60, todo="mend it", exit_code=Exit.CLICKHOUSE_TABLE)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.message, again.code, again.todo, again.exit_code) == (
        "it broke",
        60,
        "mend it",
        Exit.CLICKHOUSE_TABLE,
    )
    assert str(again) == "it broke. mend it"


def test_a_summary_begins_with_whose_rows_and_which_and_names_no_contents() -> None:
    assert message(rows=2, size_bytes=90).summary == (
        "(outhaul #4: 2 rows, 0/1#0 to 0/2#0, into event_log, 90 bytes, epoch 3)"
    )
    assert ", into event_log, copied from the outbox, " in message(lane="copy").summary


def test_each_dispatch_of_a_batch_is_a_task_of_its_own() -> None:
    first, again = message(), message(attempt=1)
    assert (first.task_id, again.task_id) == (f"{first.token}-0", f"{first.token}-1")
