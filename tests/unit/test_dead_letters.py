"""A dead letter becomes the row it was, or says which value stands in the way."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outhaul.cdc_reader.capture.column_types import Oid
from outhaul.cdc_reader.capture.pg_text import printed, row_json
from outhaul.cdc_reader.capture.pgoutput_messages import POSTGRES_EPOCH_US
from outhaul.cdc_reader.operate.dead_letters import json_text, position_of, to_json
from outhaul.sink.errors import Exit, FatalError, ForeignMessageError, PoisonError
from outhaul.sink.letters.dead_letters import chunks
from outhaul.sink.letters.restore import Letter, restore, values_of
from outhaul.sink.letters.retry_message import MAX_POSITIONS, RetryMessage
from outhaul.sink.letters.retry_task import LetterOutcome, LetterReport
from outhaul.sink.position import Lsn, Position
from outhaul.sink.quarantine import DEAD_LETTER_SCHEMA, dead_letter
from outhaul.sink.timestamps import microseconds

WIDE = "Nullable(DateTime64(6, 'UTC'))"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, END = -2_208_988_800_000_000, 10_413_792_000_000_000
AT = Position(Lsn(9), 3)


def letter(row: Any) -> Letter:
    return Letter(AT, row if isinstance(row, str) else json.dumps(row), "why", 5, 6, discarded=False)


@given(st.integers(FIRST, END - 1))
def test_every_time_that_a_column_holds_is_read_as_postgres_prints_it(us: int) -> None:
    text = printed((us - POSTGRES_EPOCH_US).to_bytes(8, "big", signed=True), Oid.TIMESTAMPTZ).decode()
    assert microseconds(text, WIDE) == us
    assert EPOCH + timedelta(microseconds=us) == datetime.fromisoformat(text)


@given(st.one_of(st.integers(-210_866_803_200_000_000, FIRST - 1), st.integers(END, 9_223_371_331_200_000_000)))
def test_every_time_outside_a_column_s_range_is_refused_and_named(us: int) -> None:
    if us - POSTGRES_EPOCH_US < -211_813_488_000_000_000:
        return
    text = printed((us - POSTGRES_EPOCH_US).to_bytes(8, "big", signed=True), Oid.TIMESTAMPTZ).decode()
    with pytest.raises(PoisonError, match=re.escape(text)):
        microseconds(text, WIDE)


@pytest.mark.parametrize(
    ("text", "kind", "us"),
    [
        ("1970-01-01 02:00:00+02", WIDE, 0),
        ("1970-01-01 00:00:00-05:30", WIDE, 19_800_000_000),
        ("1970-01-01 24:00:00", WIDE, 86_400_000_000),
        ("1970-01-02", "Date", 86_400_000_000),
        ("2000-02-29 00:00:00.5+00", "DateTime", 951_782_400_500_000),
        ("1970-01-01T00:00:01Z", "DateTime64(3)", 1_000_000),
        ("2026-03-01 10:00:00.123456+00:00", WIDE, 1_772_359_200_123_456),
    ],
)
def test_a_time_may_be_written_with_or_without_a_zone(text: str, kind: str, us: int) -> None:
    assert microseconds(text, kind) == us


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("infinity", WIDE),
        ("-infinity", "Date32"),
        ("0044-03-15 00:00:00+00 BC", WIDE),
        ("12000-01-01 00:00:00+00", WIDE),
        ("2026-02-29 00:00:00+00", WIDE),
        ("2026-01-01 25:00:00+00", WIDE),
        ("1969-12-31 23:59:59+00", "DateTime('UTC')"),
        ("2106-02-07 06:28:16+00", "DateTime"),
        ("2263-01-01 00:00:00+00", "DateTime64(9, 'UTC')"),
        ("2150-01-01", "Date"),
        ("tomorrow", WIDE),
        ("", WIDE),
    ],
)
def test_what_a_column_cannot_hold_is_refused_and_never_bent(text: str, kind: str) -> None:
    with pytest.raises(PoisonError):
        microseconds(text, kind)


def test_a_restored_row_has_times_as_times_and_the_rest_as_text() -> None:
    row = {"id": "7", "event_date_time": "2026-01-01 00:00:00+00", "due": "2026-01-02", "note": None, "raw": "\\x00ff"}
    types = {"id": "Int64", "event_date_time": "DateTime64(6, 'UTC')", "due": "Nullable(Date32)", "note": "String"}
    found = restore(letter(row), types | {"raw": "Nullable(String)"}, ["raw"])
    first = {name: column[0] for name, column in found.to_pydict().items()}
    assert (first["id"], first["note"], first["raw"]) == (b"7", None, b"\x00\xff")
    assert (str(first["event_date_time"]), str(first["due"])) == ("2026-01-01 00:00:00+00:00", "2026-01-02")
    assert (first["cdc_lsn"], first["cdc_ordinal"]) == (9, 3)
    assert all(b"clickhouse" in field.metadata for field in found.schema)


def test_a_value_without_a_column_is_refused_and_an_absent_one_is_not_missed() -> None:
    assert restore(letter({"id": "7", "gone": None}), {"id": "Int64"}, []).num_columns == 4
    with pytest.raises(PoisonError, match="gone: the event table has no such column"):
        restore(letter({"id": "7", "gone": "x"}), {"id": "Int64"}, [])


def test_a_time_becomes_text_where_the_column_was_made_a_string() -> None:
    found = restore(letter({"due": "infinity"}), {"due": "Nullable(String)"}, [])
    assert found.column("due")[0].as_py() == b"infinity"


@pytest.mark.parametrize("row", ["", "{", "[]", "{}", '"x"', "1", "[" * 100_000])
def test_a_letter_that_holds_no_row_is_refused(row: str) -> None:
    with pytest.raises(PoisonError, match="no row"):
        values_of(letter(row))


def test_a_letter_that_was_mended_by_hand_may_hold_numbers_and_objects() -> None:
    assert values_of(letter('{"id":5,"event_context":{"a":1},"x":null}')) == {
        "id": "5",
        "event_context": '{"a": 1}',
        "x": None,
    }


@given(st.binary(max_size=20), st.binary(max_size=20), st.booleans())
def test_bytes_come_back_whole_from_the_letters_of_reader_and_sink(text: bytes, raw: bytes, by_reader: bool) -> None:
    types = {"note": "String", "raw": "Nullable(String)"}
    if by_reader:
        made = row_json({"note": text, "raw": printed(raw, Oid.BYTEA)})
    else:
        fields = [
            pa.field("note", pa.binary(), metadata={"clickhouse": "String"}),
            pa.field("raw", pa.binary(), metadata={"clickhouse": "String", "bytea": ""}),
        ]
        columns = [pa.array([value], pa.binary()) for value in (text, raw)]
        record = pa.record_batch(
            [*columns, *(pa.array([0], field.type) for field in list(DEAD_LETTER_SCHEMA)[2:])],
            schema=pa.schema([*fields, *list(DEAD_LETTER_SCHEMA)[2:]]),
        )
        made = dead_letter(record, "why").column("row")[0].as_py().decode()
    found = restore(letter(made), types, ["raw"]).to_pydict()
    assert (found["note"], found["raw"]) == ([text], [raw])
    assert json.loads(json_text(to_json(letter(made))))["row"] == json.loads(made)


def test_an_order_comes_back_as_it_was_sent() -> None:
    order = RetryMessage("outhaul", "event_log", "ab" * 16, (AT, Position(Lsn(1 << 63), 0)), ("raw",))
    assert RetryMessage.from_json(json.loads(json.dumps(order.to_json())), "outhaul") == order


@pytest.mark.parametrize(
    "forged",
    [
        {"source": "another"},
        {"run": "x"},
        {"run": 7},
        {"positions": []},
        {"positions": ["0/1#0"] * (MAX_POSITIONS + 1)},
        {"positions": ["0/1#0; DROP"]},
        {"positions": [1]},
        {"positions": "0/1#0"},
        {"hex_columns": [1]},
        {"hex_columns": "raw"},
        {"version": 1},
        {"branch": ""},
        {"branch": "event_log\0"},
        {"branch": 1},
        {"more": 1},
    ],
)
def test_a_forged_retry_message_is_refused(forged: dict[str, Any]) -> None:
    data = RetryMessage("outhaul", "event_log", "ab" * 16, (AT,)).to_json()
    assert RetryMessage.from_json(data, "outhaul")
    with pytest.raises(ForeignMessageError):
        RetryMessage.from_json(data | forged, "outhaul")
    others: list[Any] = [None, [], "x", {}]
    for other in others:
        with pytest.raises(ForeignMessageError):
            RetryMessage.from_json(other, "outhaul")


def test_a_report_on_a_letter_is_read_back_and_another_line_is_ignored() -> None:
    word = LetterReport("0/9#3", LetterOutcome.REFUSED, "why")
    assert LetterReport.from_json(word.to_json().encode()) == word
    for text in (b"", b"[]", b"{}", b"\xff", b'{"position": "0/9#3", "fate": "lost", "why": ""}', b"[" * 100_000):
        assert LetterReport.from_json(text) is None


def test_a_position_on_the_command_line_is_as_list_prints_it() -> None:
    assert position_of("0/9#3") == AT
    for wrong in ("9", "0/9", "0/9#x", "x/y#1"):
        with pytest.raises(FatalError) as told:
            position_of(wrong)
        assert told.value.exit_code is Exit.USAGE


def test_positions_are_cut_into_pieces_in_order() -> None:
    found = [Position(Lsn(1), n) for n in range(7)]
    assert list(chunks(set(found), 3)) == [found[:3], found[3:6], found[6:]]
