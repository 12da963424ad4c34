from __future__ import annotations

import gc
import sys
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outhaul.cdc_reader.capture.column_types import Oid
from outhaul.cdc_reader.capture.decode import Decoded, Decoder, Segment
from outhaul.cdc_reader.capture.pgoutput_messages import Column, Relation
from outhaul.cdc_reader.postgres.errors import UnsupportedBinary
from outhaul.sink.errors import FatalError, FrameError, PipelineError
from tests.unit import pgoutput_frames as pg

if TYPE_CHECKING:
    from collections.abc import Collection

AUDIT = Relation(16_500, "public", "audit", "d", (Column("id", Oid.INT8), Column("note", Oid.TEXT)))
WIDER = replace(AUDIT, columns=(*AUDIT.columns, Column("extra", Oid.INT4)))
TABLES = {"public.outbox": "event_log", "public.audit": "audit_log"}

STREAM = [
    pg.keepalive(90),
    pg.begin(100, 5),
    pg.relation(),
    pg.event(1),
    pg.event(2, at_us=None),
    pg.keepalive(95),
    pg.event(3, at_us=2**63 - 1),
    pg.commit(100),
    pg.begin(200),
    pg.commit(200),
    pg.begin(300, 6),
    pg.relation(AUDIT),
    pg.insert([1, b"a"], AUDIT),
    pg.event(4),
    pg.insert([2, b""], AUDIT),
    pg.relation(WIDER),
    pg.insert([3, None, 7], WIDER),
    pg.commit(300),
    pg.keepalive(400),
]
"""Two tables, an empty transaction, NULLs, a refused row, keepalives everywhere, a column added in a transaction."""


def names(segment: Segment) -> list[str]:
    return list(segment.columns.schema.names)


def captured(relation: Relation) -> list[str]:
    return [column.name for column in relation.columns if column.name != "processed"]


def decoder() -> Decoder:
    return Decoder(TABLES)


def started() -> Decoder:
    """Give a decoder that knows the relations and stands between two transactions."""
    one = decoder()
    one.decode([pg.begin(1), pg.relation(), pg.relation(AUDIT), pg.commit(1)])
    return one


def rows_of(decoded: list[Decoded]) -> dict[str, list[tuple[Any, ...]]]:
    """Flatten to (lsn, ordinal, time, row, whole row if refused) for each table, in stream order."""
    rows: dict[str, list[tuple[Any, ...]]] = {}
    for piece in decoded:
        for segment in piece.segments:
            segment.columns.validate(full=True)
            refused = {row.row: (row.row_json, row.reason) for row in segment.refused_rows}
            assert np.flatnonzero(segment.refused).tolist() == list(refused)
            for at, row in enumerate(segment.columns.to_pylist()):
                place = int(segment.lsn[at]), int(segment.ordinal[at]), int(segment.committed_at_us[at])
                rows.setdefault(segment.table, []).append((*place, repr(row), refused.get(at)))
    return rows


def positions(decoded: Decoded) -> dict[str, list[tuple[int, int]]]:
    return {table: [row[:2] for row in rows] for table, rows in rows_of([decoded]).items()}


def test_a_row_has_its_commit_lsn_its_ordinal_and_its_commit_time() -> None:
    decoded = decoder().decode(STREAM)
    assert positions(decoded) == {
        "event_log": [(100, 0), (100, 1), (100, 2), (300, 0)],
        "audit_log": [(300, 0), (300, 1), (300, 2)],
    }
    assert [segment.table for segment in decoded.segments] == ["event_log", "audit_log", "audit_log"]
    assert [names(segment) for segment in decoded.segments] == [captured(one) for one in (pg.EVENTS, AUDIT, WIDER)]
    assert [len(segment) for segment in decoded.segments] == [4, 2, 1]
    assert decoded.segments[0].committed_at_us.tolist() == [946_684_800_000_005] * 3 + [946_684_800_000_006]
    assert decoded.commit_count == 3
    assert decoded.safe_lsn == 400
    assert not decoded.in_transaction


def test_a_relation_sent_again_unchanged_starts_no_segment() -> None:
    stream = [pg.begin(1), pg.relation(), pg.event(1), pg.relation(), pg.event(2), pg.commit(1)]
    assert len(decoder().decode(stream).segments) == 1


def test_a_relation_that_changes_and_changes_back_makes_three_segments() -> None:
    stream = [pg.begin(1), pg.relation(AUDIT), pg.insert([1, b"a"], AUDIT), pg.relation(WIDER)]
    stream += [pg.insert([2, b"b", 3], WIDER), pg.relation(AUDIT), pg.insert([4, b"c"], AUDIT), pg.commit(1)]
    decoded = decoder().decode(stream)
    assert [names(segment) for segment in decoded.segments] == [captured(one) for one in (AUDIT, WIDER, AUDIT)]
    assert positions(decoded) == {"audit_log": [(1, 0), (1, 1), (1, 2)]}


def test_a_table_that_changes_does_not_cut_another_one() -> None:
    stream = [pg.begin(1), pg.relation(), pg.event(1), pg.relation(AUDIT), pg.event(2), pg.relation(WIDER)]
    decoded = decoder().decode([*stream, pg.event(3), pg.commit(1)])
    assert [len(segment) for segment in decoded.segments] == [3]


def test_ordinals_of_interleaved_tables_count_each_for_itself() -> None:
    decoded = started().decode(
        [pg.begin(9), *[row for n in range(3) for row in (pg.event(n), pg.insert([n, b""], AUDIT))], pg.commit(9)]
    )
    assert positions(decoded) == {"event_log": [(9, 0), (9, 1), (9, 2)], "audit_log": [(9, 0), (9, 1), (9, 2)]}
    assert len(decoded.segments) == 2


def test_two_relations_of_one_clickhouse_table_never_share_a_position() -> None:
    part = replace(pg.EVENTS, oid=99, name="outbox_1")
    both = Decoder({"public.outbox": "event_log", "public.outbox_1": "event_log"})
    row = [1, b"", 0, b"", b"{}", 1, False]
    head = [pg.begin(1), pg.relation(), pg.relation(part), pg.insert(row, part), pg.event(2)]
    first = rows_of([both.decode([*head, pg.insert(row, part)])])["event_log"]
    second = rows_of([both.decode([pg.event(3), pg.commit(1)])])["event_log"]
    assert sorted(place[1] for place in first + second) == [0, 1, 2, 3]


def test_a_transaction_may_span_any_number_of_pieces() -> None:
    one = started()
    assert one.decode([pg.begin(9)]).in_transaction
    pieces = [one.decode([pg.event(n)]) for n in range(4)]
    assert [positions(piece)["event_log"] for piece in pieces] == [[(9, n)] for n in range(4)]
    assert all(piece.in_transaction and piece.safe_lsn is None and not piece.commit_count for piece in pieces)
    last = one.decode([pg.commit(9, 17)])
    assert (last.in_transaction, last.safe_lsn, last.commit_count, last.segments) == (False, 17, 1, ())
    assert positions(one.decode([pg.begin(20), pg.event(9)])) == {"event_log": [(20, 0)]}


@pytest.mark.parametrize(
    ("frames", "safe"),
    [
        ([], None),
        ([pg.keepalive(50)], 50),
        ([pg.keepalive(50), pg.keepalive(49)], 50),
        ([pg.keepalive(50), pg.begin(60)], 50),
        ([pg.begin(60), pg.keepalive(70)], None),
        ([pg.begin(60), pg.commit(60, 68)], 68),
        ([pg.begin(60), pg.keepalive(70), pg.commit(60, 68)], 68),
        ([pg.begin(60), pg.commit(60, 68), pg.keepalive(80)], 80),
        ([pg.begin(60), pg.commit(60, 68), pg.begin(70), pg.keepalive(80)], 68),
        ([pg.keepalive(99), pg.begin(60), pg.commit(60, 68)], 68),
        ([pg.begin(60), pg.commit(60, 68), pg.keepalive(67)], 68),
    ],
)
def test_safe_is_the_last_commit_or_a_later_keepalive_outside_transactions(
    frames: list[bytes], safe: int | None
) -> None:
    assert started().decode(frames).safe_lsn == safe


def test_a_keepalive_in_a_transaction_begun_in_an_earlier_piece_is_not_safe() -> None:
    one = started()
    one.decode([pg.begin(60)])
    assert one.decode([pg.keepalive(80)]).safe_lsn is None
    assert one.decode([pg.commit(60, 68), pg.keepalive(80)]).safe_lsn == 80


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([pg.begin(5), pg.begin(6)], "a Begin was received while a transaction was open"),
        ([pg.commit(5)], "no transaction was open"),
        ([pg.begin(5), pg.commit(5), pg.commit(5)], "no transaction was open"),
        ([pg.begin(5), pg.commit(6)], "another transaction"),
        ([pg.begin(5), pg.commit(5), pg.begin(4)], "backwards"),
        ([pg.begin(5), pg.commit(5), pg.begin(5)], "backwards"),
        ([pg.begin(1)], "backwards"),
        ([pg.event(1)], "no transaction was open"),
        ([pg.begin(5), pg.commit(5), pg.event(1)], "no transaction was open"),
        ([pg.begin(5), pg.insert([1, b""], replace(AUDIT, oid=77))], "not announced"),
        ([pg.data(b"D\0\0\0\1K" + pg.row([b"1"]))], "no transaction was open"),
        ([pg.begin(5), pg.data(b"S\0\0\0\1\1")], "unknown tag"),
        ([pg.begin(5), pg.data(b"P")], "unknown tag"),
    ],
)
def test_a_breach_of_the_protocol_is_an_error_in_one_piece_and_in_many(frames: list[bytes], words: str) -> None:
    whole = started()
    with pytest.raises(FrameError, match=words):
        whole.decode(frames)
    with pytest.raises(FrameError, match="cannot be used after an error"):
        whole.decode([])
    pieces = started()
    for frame in frames[:-1]:
        pieces.decode([frame])
    with pytest.raises(FrameError, match=words):
        pieces.decode(frames[-1:])


def test_a_row_before_its_relation_is_an_error_though_the_relation_comes_later() -> None:
    with pytest.raises(FrameError, match="not announced"):
        decoder().decode([pg.begin(1), pg.event(1), pg.relation(), pg.event(2), pg.commit(1)])


def test_a_table_nobody_asked_for_is_fatal_and_says_what_to_do() -> None:
    other = replace(AUDIT, name="secrets", oid=7)
    one = started()
    one.decode([pg.begin(5), pg.relation(other)])
    with pytest.raises(FatalError, match=r"public\.secrets") as error:
        one.decode([pg.insert([1, b""], other)])
    assert error.value.todo
    assert not isinstance(error.value, FrameError)


def test_an_unknown_binary_type_asks_for_text_and_spends_the_decoder() -> None:
    other = replace(AUDIT, columns=(Column("id", 790), Column("note", Oid.TEXT)))
    one = started()
    with pytest.raises(UnsupportedBinary):
        one.decode([pg.begin(5), pg.relation(other), pg.insert([b"x", b""], other)])
    with pytest.raises(FrameError, match="cannot be used after an error"):
        one.decode([])


def test_housekeeping_and_other_messages_are_passed_over() -> None:
    others = [
        b"D\0\0\0\1K" + pg.row([b"1"]),
        b"U\0\0\0\1N" + pg.row([b"1"]),
        b"T\0\0\0\1\0\0\0\0\7",
        b"Y\0\0\0\7a\0b\0",
    ]
    others += [b"O" + bytes(8) + b"o\0", b"M\1" + bytes(8) + b"p\0\0\0\0\1x"]
    stream = [pg.begin(5), pg.event(1), *map(pg.data, others), pg.event(2), pg.commit(5)]
    assert positions(started().decode(stream)) == {"event_log": [(5, 0), (5, 1)]}


def test_text_tuples_give_the_same_rows() -> None:
    texts = [b"1", b"order.placed", b"2000-01-01 00:00:00+00", b"production", b'{"a": 1}', b"1", b"f"]
    stream = [pg.begin(1), pg.relation(), pg.raw_insert(texts, kind=b"t"), pg.commit(1)]
    binary = [pg.begin(1), pg.relation(), pg.event(1), pg.commit(1)]
    assert rows_of([decoder().decode(stream)]) == rows_of([decoder().decode(binary)])


def test_take_filters_all_that_belongs_to_a_row() -> None:
    segment = decoder().decode(STREAM).segments[0]
    kept = segment.take(np.array([False, True, True, False]))
    assert kept.columns.column("id").to_pylist() == [2, 3]
    assert (kept.lsn.tolist(), kept.ordinal.tolist(), len(kept)) == ([100, 100], [1, 2], 2)
    assert kept.refused.tolist() == [False, True]
    assert [row.row for row in kept.refused_rows] == [1]
    assert segment.take(segment.refused).refused_rows[0].row == 0
    assert segment.take(~segment.refused).refused_rows == ()
    assert len(segment.take(np.zeros(4, np.bool_))) == 0


def test_the_arrays_do_not_keep_the_piece_alive() -> None:
    frames = [pg.begin(5), *[pg.event(n, context=b"x" * 100_000) for n in range(10)], pg.commit(5)]
    segment = started().decode(frames).segments[0].take(np.arange(10) == 0)
    gc.collect()
    assert segment.columns.nbytes < 200_000
    held = [one for one in gc.get_objects() if issubclass(type(one), np.ndarray) and one.nbytes > 500_000]
    assert not held
    assert sys.getrefcount(frames[1]) <= 3


@pytest.mark.parametrize("at", [at for at, frame in enumerate(STREAM) if frame[:1] == b"w"])
def test_every_prefix_and_extension_of_every_frame_is_an_error(at: int) -> None:
    frame = STREAM[at]
    for length in [*range(len(frame)), len(frame) + 1, len(frame) + 40]:
        with pytest.raises(FrameError):
            decoder().decode([*STREAM[:at], (frame + bytes(40))[:length], *STREAM[at + 1 :]])


@given(st.sets(st.integers(0, len(STREAM))))
def test_rows_and_positions_do_not_depend_on_where_the_stream_is_cut(cuts: Collection[int]) -> None:
    bounds = [0, *sorted(cuts), len(STREAM)]
    one = decoder()
    pieces = [one.decode(STREAM[a:b]) for a, b in pairwise(bounds)]
    assert rows_of(pieces) == rows_of([decoder().decode(STREAM)])
    assert max(piece.safe_lsn or 0 for piece in pieces) == 400
    assert sum(piece.commit_count for piece in pieces) == 3
    assert not pieces[-1].in_transaction


@dataclass(frozen=True)
class Script:
    """A random history: for each transaction the tables that its rows go to, in order."""

    transactions: list[list[str]]

    def frames(self) -> list[bytes]:
        sent: set[str] = set()
        frames = []
        for number, rows in enumerate(self.transactions, 1):
            frames.append(pg.begin(100 * number, number))
            for table in rows:
                relation = pg.EVENTS if table == "event_log" else AUDIT
                if table not in sent:
                    frames.append(pg.relation(relation))
                    sent.add(table)
                frames.append(pg.event(number) if table == "event_log" else pg.insert([number, b"n"], AUDIT))
            frames += [pg.commit(100 * number), pg.keepalive(100 * number + 50)]
        return frames

    def positions(self) -> dict[str, list[tuple[int, int]]]:
        expected: dict[str, list[tuple[int, int]]] = {}
        for number, rows in enumerate(self.transactions, 1):
            for at, table in enumerate(rows):
                expected.setdefault(table, []).append((100 * number, rows[:at].count(table)))
        return expected


_HISTORIES = st.lists(st.lists(st.sampled_from(["event_log", "audit_log"]), max_size=6), max_size=8).map(Script)


@given(_HISTORIES, st.lists(st.integers(0, 200), max_size=10))
def test_positions_are_those_of_the_history_wherever_it_is_cut(script: Script, cuts: Collection[int]) -> None:
    frames = script.frames()
    bounds = [0, *sorted(min(cut, len(frames)) for cut in cuts), len(frames)]
    one = decoder()
    rows = rows_of([one.decode(frames[a:b]) for a, b in pairwise(bounds)])
    assert {table: [row[:2] for row in of] for table, of in rows.items()} == script.positions()


def _try(frames: list[bytes]) -> None:
    one = Decoder(TABLES)
    try:
        for segment in [*one.decode(frames[:9]).segments, *one.decode(frames[9:]).segments]:
            segment.columns.validate(full=True)
    except PipelineError:
        return


@given(st.integers(0, len(STREAM) - 1), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 7)), max_size=3))
def test_flipped_bits_never_raise_anything_else(at: int, flips: list[tuple[int, int]]) -> None:
    frame = bytearray(STREAM[at])
    for place, bit in flips:
        frame[place % len(frame)] ^= 1 << bit
    _try([*STREAM[:at], bytes(frame), *STREAM[at + 1 :]])


@given(st.lists(st.binary(max_size=60) | st.binary(max_size=60).map(pg.data), max_size=4))
def test_random_bytes_never_raise_anything_else(frames: list[bytes]) -> None:
    _try([pg.begin(1), pg.relation(), *frames])


@given(st.lists(st.binary(max_size=30), min_size=len(Oid), max_size=len(Oid)), st.booleans())
def test_random_values_never_raise_anything_else(values: list[bytes], binary: bool) -> None:
    every = pg.everything()
    row = pg.raw_insert(values, every.oid, b"b" if binary else b"t")
    _try([pg.begin(1), pg.relation(every), row, pg.commit(1)])


_DATELIKE = st.text("0123456789-+:. eEinfatyNBCx\\\0", max_size=40).map(str.encode)


@given(st.sampled_from(list(Oid)), st.binary(max_size=40) | _DATELIKE, st.booleans())
def test_a_random_value_of_one_type_never_raises_anything_else(oid: Oid, value: Any, binary: bool) -> None:
    relation = Relation(5, "public", "outbox", "d", (Column("c", oid),))
    row = pg.raw_insert([value], 5, b"b" if binary else b"t")
    _try([pg.begin(1), pg.relation(relation), row, pg.commit(1)])
