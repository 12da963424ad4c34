"""Logical messages that carry an event become the rows that a table would have given; others become dead letters."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outhaul.cdc_reader.capture.decode import Decoded, Decoder
from outhaul.cdc_reader.capture.logical_message import FIRST_ORDINAL, Emitted, decode_emitted
from outhaul.sink.errors import FrameError
from outhaul.sink.position import Lsn
from tests.unit import pgoutput_frames as pg

EVENT = {"event_type": "paid", "environment": "test", "event_context": {"n": 1}}


def decoder() -> Decoder:
    return Decoder(pg.TABLES, messages={"outhaul": "event_log"})


def decoded(*frames: bytes) -> Decoded:
    return decoder().decode(frames)


def row_of(content: bytes | dict[str, Any]) -> dict[str, Any]:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    rows = decode_emitted([Emitted(Lsn(800), body)])
    assert not rows.refused_rows, rows.refused_rows
    found: dict[str, Any] = rows.columns.to_pylist()[0]
    return found


def refusal(content: bytes | dict[str, Any]) -> str:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    rows = decode_emitted([Emitted(Lsn(800), body)])
    assert rows.refused.tolist() == [True]
    (refused,) = rows.refused_rows
    assert json.loads(refused.row_json)["message"].encode("utf-8", "surrogateescape") == body
    return refused.reason


def test_an_event_has_the_columns_and_types_of_an_outbox_row() -> None:
    table = decoder().decode([pg.relation(), pg.begin(90), pg.event(1), pg.commit(90)]).segments[0]
    message = decoded(pg.begin(90), pg.emitted(EVENT), pg.commit(90)).segments[0]
    for field in table.columns.schema:
        assert message.columns.schema.field(field.name).equals(field, check_metadata=True)


def test_what_is_given_arrives_and_what_is_not_has_the_defaults_of_the_table() -> None:
    whole = row_of(
        EVENT | {"event_date_time": "2026-01-02T03:04:05.678901+01:00", "metadata_version": 7, "event_key": "k"}
    )
    assert whole == {
        "id": -800,
        "event_type": b"paid",
        "event_date_time": datetime(2026, 1, 2, 2, 4, 5, 678901, UTC),
        "environment": b"test",
        "event_context": b'{"n": 1}',
        "metadata_version": 7,
        "event_key": b"k",
    }
    bare = row_of(EVENT)
    assert (bare["event_date_time"], bare["metadata_version"], bare["event_key"]) == (None, 1, None)
    assert "traceparent" not in bare


def test_a_context_keeps_every_character_that_the_app_wrote() -> None:
    context = '{"a" : 1.10, "b":12345678901234567890123, "c": "\\u00e9\u20ac", "a": -0.0}'
    text = '{ "event\\u005fcontext" :' + context + '\n,"environment":"test","event_type":"x" } '
    assert row_of(text.encode())["event_context"] == context.encode()


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_any_context_arrives_as_it_is(context: Any) -> None:
    if context is None:
        return
    assert json.loads(row_of(EVENT | {"event_context": context})["event_context"]) == context


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not valid at character 0"),
        (b"[]", "not valid at character 0"),
        (b"{}", "not valid at character 0"),
        (b',"event_type": "x"}', "not valid at character 0"),
        (b'{"event_type": "x"', "not valid at character 18"),
        (b'{"event_type" "x"}', "not valid at character 0"),
        (b'{"event_type": }', "Expecting value"),
        (b'{"event_type": "x" {"a": 1}', "not valid at character 18"),
        (json.dumps(EVENT).encode() + b"x", "characters follow the end"),
        (b'{"event_type": "x", "event_type": "y"}', "twice"),
        (b"\xff\xfe", "utf-8"),
        (b'{"event_context": NaN}', "NaN is not JSON"),
        (b'{"event_context": ' + b"[" * 100_000, "recursion"),
        ({"event_type": "x", "environment": "test"}, "event_context is missing"),
        (EVENT | {"event_type": None}, "event_type is missing"),
        (EVENT | {"event_type": 1}, "event_type is not a string"),
        (EVENT | {"event_type": "\ud800"}, "surrogates"),
        (EVENT | {"metadata_version": True}, "metadata_version"),
        (EVENT | {"metadata_version": 1 << 63}, "metadata_version"),
        (EVENT | {"event_date_time": "yesterday"}, "is not a date or time"),
        (EVENT | {"event_date_time": "infinity"}, "outside what DateTime64"),
        (EVENT | {"user": 1}, "'user' is not a column"),
    ],
)
def test_what_is_no_event_is_set_aside_whole_with_the_reason(content: bytes | dict[str, Any], why: str) -> None:
    assert why in refusal(content)


def test_messages_are_counted_apart_so_that_rows_keep_their_positions() -> None:
    frames = [
        pg.relation(),
        pg.begin(90),
        pg.emitted(EVENT, lsn=16),
        pg.event(1),
        pg.emitted(EVENT, lsn=24),
        pg.event(2),
        pg.commit(90),
        pg.begin(200),
        pg.emitted(EVENT, lsn=104),
        pg.commit(200),
    ]
    messages, rows = decoded(*frames).segments
    assert rows.ordinal.tolist() == [0, 1]
    assert messages.lsn.tolist() == [90, 90, 200]
    assert messages.ordinal.tolist() == [FIRST_ORDINAL, FIRST_ORDINAL + 1, FIRST_ORDINAL]
    assert messages.columns.column("id").to_pylist() == [-16, -24, -104]
    # Wherever the stream is cut, the positions are the same.
    for cut in range(1, len(frames)):
        one = decoder()
        parts = [*one.decode(frames[:cut]).segments, *one.decode(frames[cut:]).segments]
        assert sorted(
            (int(lsn), int(at)) for part in parts for lsn, at in zip(part.lsn, part.ordinal, strict=True)
        ) == [
            (90, 0),
            (90, 1),
            (90, FIRST_ORDINAL),
            (90, FIRST_ORDINAL + 1),
            (200, FIRST_ORDINAL),
        ]


def test_messages_of_others_are_passed_over_and_ours_outside_of_a_transaction_are_counted() -> None:
    found = decoded(
        pg.emitted(EVENT, transactional=False),
        pg.begin(90),
        pg.emitted(b"\xff", prefix="theirs"),
        pg.commit(90),
        pg.emitted(b"", prefix="theirs", transactional=False),
    )
    assert (found.segments, found.stray_messages) == ((), 1)


def test_a_message_that_says_it_is_of_a_transaction_comes_in_one() -> None:
    with pytest.raises(FrameError, match="no transaction"):
        decoded(pg.emitted(EVENT))


def test_a_trace_is_a_column_where_an_event_has_one() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    rows = decode_emitted(
        [Emitted(Lsn(8), json.dumps(one).encode()) for one in (EVENT, EVENT | {"traceparent": trace})]
    )
    assert rows.columns.column("traceparent").to_pylist() == [None, trace.encode()]


def test_a_place_beyond_every_log_is_no_id() -> None:
    with pytest.raises(FrameError, match="the LSN of a message is out of range"):
        decode_emitted([Emitted(Lsn(1 << 63), b"{}")])
