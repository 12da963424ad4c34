from __future__ import annotations

import struct
from array import array
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outhaul.cdc_reader.capture.frame import (
    MAX_PIECE_BYTES,
    Keepalive,
    Run,
    is_keepalive,
    parse_keepalive,
    server_status,
    split,
    standby_status,
    wal_end,
)
from outhaul.sink.errors import FrameError
from outhaul.sink.position import Lsn
from tests.unit import pgoutput_frames as pg


def test_messages_and_keepalives_are_told_apart_in_stream_order() -> None:
    frames = [pg.keepalive(1), pg.data(b"Bxyz"), pg.data(b"C"), pg.keepalive(2), pg.data(b"I12")]
    piece = split(frames)
    assert [piece.buffer[a:b] for a, b in zip(piece.starts, piece.ends, strict=True)] == [b"Bxyz", b"C", b"I12"]
    assert piece.tags.tobytes() == b"BCI"
    assert piece.keepalive_at.tolist() == [0, 2]
    assert piece.keepalive_wal_end.tolist() == [1, 2]


def test_an_empty_piece_has_no_messages() -> None:
    piece = split([])
    assert len(piece.starts) == len(piece.tags) == len(piece.keepalive_at) == 0


@given(st.binary(max_size=40).filter(lambda frame: frame[:1] not in {b"w", b"k"}))
def test_a_frame_of_another_kind_is_an_error(frame: bytes) -> None:
    with pytest.raises(FrameError):
        split([pg.keepalive(1), frame])


@pytest.mark.parametrize("length", range(pg.data(b"B").__len__()))
def test_a_cut_header_is_an_error(length: int) -> None:
    frame = pg.data(b"B")[:length]
    with pytest.raises(FrameError):
        split([frame])
    with pytest.raises(FrameError):
        wal_end(frame)


@pytest.mark.parametrize("length", [n for n in range(30) if n != 18])
def test_a_keepalive_of_another_length_is_an_error(length: int) -> None:
    frame = (pg.keepalive(7) + bytes(20))[:length]
    with pytest.raises(FrameError):
        split([frame])
    with pytest.raises(FrameError):
        parse_keepalive(frame)


def test_a_piece_that_32_bit_offsets_cannot_reach_is_an_error() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return MAX_PIECE_BYTES + 1

    with pytest.raises(FrameError, match="2 GiB"):
        split([Huge()])


@given(st.integers(0, 2**64 - 1), st.booleans())
def test_a_keepalive_says_what_the_server_sent(lsn: int, reply: bool) -> None:
    frame = pg.keepalive(lsn, reply_requested=reply)
    assert is_keepalive(frame)
    assert parse_keepalive(frame).wal_end == lsn
    assert parse_keepalive(frame).reply_requested is reply
    assert split([frame]).keepalive_wal_end.tolist() == [lsn]


@given(st.integers(0, 2**64 - 1))
def test_the_wal_end_of_a_message_is_its_second_number(lsn: int) -> None:
    assert wal_end(pg.data(b"B", 5, lsn)) == Lsn(lsn)
    assert not is_keepalive(pg.data(b"B", 5, lsn))


def test_no_frame_at_all_is_no_keepalive() -> None:
    assert not is_keepalive(b"")


def test_a_status_update_has_34_bytes_and_its_parts_in_order() -> None:
    status = standby_status(Lsn(3), Lsn(2), Lsn(1), 4, reply_requested=True)
    assert len(status) == 34
    assert struct.unpack(">cQQQqB", status) == (b"r", 3, 2, 1, 4, 1)
    assert standby_status(Lsn(3), Lsn(2), Lsn(1), 4)[-1] == 0


def test_read_only_views_serve_as_well_as_bytes() -> None:
    # Frames are declared as bytes, which to the type checker a view of bytes is not.
    frames = cast("list[bytes]", [memoryview(pg.keepalive(7)), memoryview(pg.data(b"B", 5, 9))])
    assert split(frames).tags.tobytes() == b"B"
    assert is_keepalive(frames[0])
    assert parse_keepalive(frames[0]).wal_end == 7
    assert wal_end(frames[1]) == 9


def run_of(*frames: bytes) -> Run:
    return Run(bytearray(b"".join(frames)), array("q", map(len, frames)))


def test_a_run_has_the_position_of_the_server_and_whether_it_asked_for_a_reply() -> None:
    asking, silent, row = pg.keepalive(5, reply_requested=True), pg.keepalive(7), pg.data(b"B", 5, 9)
    assert server_status(run_of(row)) == Keepalive(Lsn(9), reply_requested=False)
    assert server_status(run_of(row, silent)) == Keepalive(Lsn(7), reply_requested=False)
    assert server_status(run_of(asking, row, row)) == Keepalive(Lsn(9), reply_requested=True)
    assert server_status(run_of(row, asking, silent)) == Keepalive(Lsn(7), reply_requested=True)


@pytest.mark.parametrize("frame", [b"", b"x" * 18, b"w" * 18, pg.keepalive(1)[:-1], pg.keepalive(1) + b"\0"])
def test_a_malformed_end_of_a_run_is_refused(frame: bytes) -> None:
    with pytest.raises(FrameError):
        server_status(run_of(pg.data(b"B", 5, 9), frame))
