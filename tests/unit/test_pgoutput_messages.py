from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outhaul.cdc_reader.capture.frame import split
from outhaul.cdc_reader.capture.pgoutput_messages import (
    ByteReader,
    Column,
    Relation,
    begins,
    check_other,
    commits,
    parse_message,
    parse_relation,
)
from outhaul.sink.errors import FrameError
from tests.unit import pgoutput_frames as pg

_NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
_OIDS = st.integers(0, 2**32 - 1)
_COLUMNS = st.builds(Column, _NAMES, _OIDS, st.integers(-1, 2**31 - 1), st.booleans())

OTHERS = {
    "origin": b"O" + struct.pack(">Q", 9) + b"elsewhere\0",
    "type": b"Y" + struct.pack(">I", 70_000) + b"public\0mood\0",
    "message": b"M\1" + struct.pack(">Q", 9) + b"prefix\0" + struct.pack(">i", 3) + b"abc",
    "update": b"U" + struct.pack(">I", 1) + b"N" + pg.row([b"a", None]),
    "update with key": b"U" + struct.pack(">I", 1) + b"K" + pg.row([b"a", None]) + b"N" + pg.row([b"b", None], b"t"),
    "update with old row": b"U" + struct.pack(">I", 1) + b"O" + pg.row([b"a"]) + b"N" + struct.pack(">h", 1) + b"u",
    "delete": b"D" + struct.pack(">I", 1) + b"K" + pg.row([b"a", None]),
    "truncate": b"T" + struct.pack(">ib", 2, 1) + bytes(8),
}


@given(st.builds(Relation, _OIDS, _NAMES, _NAMES, st.sampled_from("dnfi"), st.lists(_COLUMNS, max_size=5).map(tuple)))
def test_a_relation_is_read_as_it_was_written(relation: Relation) -> None:
    message = pg.relation(relation)[25:]
    if len({column.name for column in relation.columns}) < len(relation.columns):
        with pytest.raises(FrameError, match="twice"):
            parse_relation(ByteReader(message))
        return
    assert parse_relation(ByteReader(message)) == relation
    assert parse_relation(ByteReader(b"before" + message + b"after", 6, 6 + len(message))) == relation


def test_a_relation_of_the_catalog_has_a_schema_too() -> None:
    assert Relation(1, "", "pg_class", "n", ()).table == "pg_catalog.pg_class"
    assert pg.EVENTS.table == "public.outbox"


def test_every_prefix_and_extension_of_a_relation_is_an_error() -> None:
    message = pg.relation()[25:]
    for cut in range(1, len(message)):
        with pytest.raises(FrameError):
            parse_relation(ByteReader(message[:cut]))
        with pytest.raises(FrameError):
            parse_relation(ByteReader(message, 0, cut))
    with pytest.raises(FrameError):
        parse_relation(ByteReader(message + b"\0"))


@pytest.mark.parametrize("name", OTHERS)
def test_every_prefix_and_extension_of_another_message_is_an_error(name: str) -> None:
    message, read = OTHERS[name], parse_message if name == "message" else check_other
    read(ByteReader(message))
    for cut in range(len(message)):
        with pytest.raises(FrameError):
            read(ByteReader(message[:cut]))
    with pytest.raises(FrameError):
        read(ByteReader(message + b"\0"))


@pytest.mark.parametrize("tag", [tag for tag in map(chr, range(256)) if tag not in "OYUDT"])
def test_a_message_of_another_protocol_version_is_an_error(tag: str) -> None:
    with pytest.raises(FrameError, match="tag"):
        check_other(ByteReader(tag.encode("latin-1") + bytes(30)))


@pytest.mark.parametrize(
    "message",
    [
        b"M\1" + bytes(8) + b"\0" + struct.pack(">i", -1),
        b"M\1" + bytes(8) + b"\0" + struct.pack(">i", 2**31 - 1) + b"abc",
        b"T" + struct.pack(">ib", -1, 1),
        b"T" + struct.pack(">ib", 2**31 - 1, 1),
        b"D" + bytes(4) + b"N" + pg.row([]),
        b"D" + bytes(4) + b"K" + struct.pack(">h", -1),
        b"D" + bytes(4) + b"K" + struct.pack(">h", 1) + b"x",
        b"Y" + bytes(4) + b"\xff\0\0",
    ],
)
def test_counts_and_kinds_that_cannot_be_are_errors(message: bytes) -> None:
    with pytest.raises(FrameError):
        check_other(ByteReader(message))


@given(st.binary(max_size=60))
def test_random_bytes_are_read_or_are_a_frame_error(data: bytes) -> None:
    for parse in (parse_relation, check_other):
        try:
            parse(ByteReader(data))
        except FrameError:
            continue


def test_begins_and_commits_are_read_many_at_a_time() -> None:
    piece = split([pg.begin(2**64 - 9, 5), pg.commit(7, 9), pg.begin(3, -5), pg.commit(2**64 - 9, 2**64 - 1)])
    begun = begins(piece, np.array([0, 2]))
    assert begun.commit_lsn.tolist() == [2**64 - 9, 3]
    assert begun.committed_at_us.tolist() == [946_684_800_000_005, 946_684_799_999_995]
    ended = commits(piece, np.array([1, 3]))
    assert ended.commit_lsn.tolist() == [7, 2**64 - 9]
    assert ended.end_lsn.tolist() == [9, 2**64 - 1]


@pytest.mark.parametrize("time", [2**63 - 1, -(2**63), 9_223_371_331_200_000_000])
def test_a_commit_time_that_postgres_does_not_have_is_an_error(time: int) -> None:
    with pytest.raises(FrameError, match="time"):
        begins(split([pg.begin(1, time)]), np.array([0]))


def test_a_commit_that_ends_before_itself_is_an_error() -> None:
    with pytest.raises(FrameError, match="before"):
        commits(split([pg.commit(8, 7)]), np.array([0]))
