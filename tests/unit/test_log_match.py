"""A stored position that the log has passed without a row is found, wherever the stream is cut into pieces."""

from __future__ import annotations

import numpy as np
import pytest

from outhaul.cdc_reader.capture.log_match import LogMatch
from outhaul.cdc_reader.capture.stored_positions import NOTHING_STORED, StoredPositions
from outhaul.sink.position import NO_LSN, Lsn

Piece = tuple[list[int], int]
"""LSNs of the rows of a piece, and the LSN that it has passed; 0 if it ends inside a transaction."""


def held(*lsns: int) -> StoredPositions:
    zeros = np.zeros(len(lsns), np.uint64)
    return StoredPositions(np.array(lsns, np.uint64), zeros, zeros)


def first_lacking(match: LogMatch, pieces: list[Piece]) -> Lsn:
    for lsns, passed in pieces:
        found = [np.array(lsns, np.uint64)] if lsns else []
        if lacking := match.first_lacking(found, Lsn(passed)):
            return lacking
    return NO_LSN


@pytest.mark.parametrize(
    ("stored", "pieces", "expected"),
    [
        ([], [([5, 7], 8)], 0),
        ([5, 7], [([5, 7], 8)], 0),
        ([5, 7], [([5], 0), ([5, 5], 6), ([7], 8)], 0),
        ([5, 7], [([5], 0)], 0),
        ([5, 7], [([5], 6)], 0),
        ([5, 7], [([5, 9], 10)], 7),
        ([5, 7], [([5], 0), ([9], 0)], 7),
        ([5, 7], [([5], 20)], 7),
        ([5, 7], [([], 6)], 5),
        ([5, 7], [([], 5)], 0),
        ([5, 5, 7], [([5, 7], 8)], 0),
    ],
)
def test_a_position_is_lacking_when_the_log_has_passed_it(
    stored: list[int], pieces: list[Piece], expected: int
) -> None:
    assert first_lacking(LogMatch(held(*stored)), pieces) == expected


def test_segments_of_one_piece_may_overlap() -> None:
    match = LogMatch(held(3, 4, 5))
    rows, messages = np.array([3, 5], np.uint64), np.array([4], np.uint64)
    assert match.first_lacking([rows, messages], Lsn(6)) == NO_LSN
    assert LogMatch(NOTHING_STORED).first_lacking([], Lsn(6)) == NO_LSN
