"""Traces of the apps are read out of a payload: a few, sampled, well formed."""

from __future__ import annotations

import pyarrow as pa
import pytest

from outhaul.sink.telemetry.sentry.producer_traces import MOST, Producer, producers_of
from outhaul.sink.telemetry.sentry.trace import is_followed

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{SPAN}-01"


def payload(column: pa.Array, name: str = "traceparent") -> bytes:
    table = pa.table({"payload": pa.array(["x"] * len(column)), name: column})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(), pa.string_view()])
def test_each_sampled_trace_is_found_once(kind: pa.DataType) -> None:
    column = pa.array([None, SAMPLED, SAMPLED]).cast(kind)
    assert producers_of(payload(column)) == [Producer(TRACE, SPAN)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"00-{TRACE}-{SPAN}-00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"{SAMPLED}-more",
        f"{SAMPLED}\n",
        "\udcff".encode("utf-8", "surrogateescape"),
    ],
)
def test_what_is_malformed_or_not_sampled_is_no_trace(text: str | bytes) -> None:
    value = text if isinstance(text, bytes) else text.encode()
    assert producers_of(payload(pa.array([value], pa.binary()))) == []


def test_no_more_than_ten_are_linked() -> None:
    many = pa.array([f"00-{number:032x}-{SPAN}-01" for number in range(1, 50)])
    assert len(producers_of(payload(many))) == MOST


@pytest.mark.parametrize(("name", "kind"), [("other", pa.string()), ("traceparent", pa.int64())])
def test_a_payload_without_such_a_text_has_none(name: str, kind: pa.DataType) -> None:
    assert producers_of(payload(pa.array([None], kind), name)) == []


def test_the_share_of_followed_batches_is_the_rate() -> None:
    tokens = [f"{number << 22:08x}" + "0" * 24 for number in range(1024)]
    assert [sum(is_followed(token, rate) for token in tokens) for rate in (0, 0.25, 1)] == [0, 256, 1024]
