"""Damaged streams: the decoder raises a PipelineError or decodes them, soon and in bounded memory."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outhaul.cdc_reader.capture.frame import HEADER_BYTES
from outhaul.sink.errors import FrameError, PipelineError
from tests.faults import fuzz_frames as fuzz
from tests.unit import pgoutput_frames as pg

STREAMS = fuzz.streams()


@pytest.mark.parametrize("stream", STREAMS, ids=[stream.name for stream in STREAMS])
@pytest.mark.parametrize("joined", [False, True])
def test_the_streams_decode_while_they_are_whole(stream: fuzz.Stream, joined: bool) -> None:
    assert fuzz.feed(stream.frames, stream.cuts, joined=joined, packed=True) >= 1


@pytest.mark.thorough
def test_a_damaged_stream_is_refused_or_decoded_and_memory_stays_where_it_is() -> None:
    seed = Random().randrange(2**32)
    fuzz.run(200, seed)
    before_mb = fuzz.peak_mb()
    found = fuzz.run(10_000, seed, seconds=15)
    assert not found.failure, found.failure
    assert found.slowest_s < 5
    assert fuzz.peak_mb() < before_mb + 50
    assert found.outcomes["FrameError"] > found.cases / 4
    assert found.outcomes["decoded, with rows"] > found.cases / 20


def test_a_finding_comes_back_by_its_number() -> None:
    assert fuzz.case(77, 3, STREAMS) == fuzz.case(77, 3, fuzz.streams())
    assert fuzz.case(77, 3, STREAMS) != fuzz.case(78, 3, STREAMS)


def test_a_failed_case_is_reported_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object, packed: bool, **__: object) -> int:
        if packed:
            return 0
        raise IndexError("out of bounds")

    monkeypatch.setattr(fuzz, "feed", wrong)
    found = fuzz.run(100, 1)
    assert found.cases == 1
    assert found.failure.startswith("case 1 of seed 1 (")
    assert "IndexError: out of bounds" in found.failure


@settings(max_examples=150, deadline=2000)
@given(st.lists(st.binary(max_size=80), max_size=6), st.booleans())
def test_arbitrary_frames_raise_nothing_but_pipeline_errors(frames: list[bytes], joined: bool) -> None:
    try:
        fuzz.feed(frames, (), joined=joined, packed=True)
    except PipelineError:
        return
    # Only keepalives are harmless on their own, and what carries no row.
    assert all(len(frame) == len(pg.keepalive(0)) or len(frame) > HEADER_BYTES for frame in frames)


@settings(max_examples=150, deadline=2000)
@given(st.lists(st.tuples(st.sampled_from(b"BCIROYMUDTSEcpKX"), st.binary(max_size=60)), max_size=6))
def test_arbitrary_messages_raise_nothing_but_pipeline_errors(messages: list[tuple[int, bytes]]) -> None:
    frames = [pg.relation(), pg.begin(90), *(pg.data(bytes([tag]) + rest) for tag, rest in messages), pg.commit(90)]
    try:
        fuzz.feed(frames, (), joined=False, packed=True)
    except PipelineError:
        return
    assert all(tag in b"BCIROYMUDT" for tag, _ in messages)


@settings(max_examples=200, deadline=2000)
@given(st.sampled_from(STREAMS), st.integers(0), st.integers(0), st.integers(1, 255))
def test_a_byte_changed_anywhere_is_refused_or_decoded(stream: fuzz.Stream, which: int, at: int, flip: int) -> None:
    frames = list(stream.frames)
    frame = bytearray(frames[which % len(frames)])
    frame[at % len(frame)] ^= flip
    frames[which % len(frames)] = bytes(frame)
    try:
        fuzz.feed(frames, stream.cuts, joined=False, packed=True)
    except PipelineError:
        return


@settings(max_examples=100, deadline=2000)
@given(st.sampled_from(STREAMS), st.integers(0), st.integers(0))
def test_a_frame_cut_anywhere_is_refused(stream: fuzz.Stream, which: int, at: int) -> None:
    frames = list(stream.frames)
    number = which % len(frames)
    frames[number] = frames[number][: at % len(frames[number])]
    with pytest.raises(FrameError):
        fuzz.feed(frames, stream.cuts, joined=False, packed=False)
