"""Recovery leaves out exactly the rows that ClickHouse holds."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from outhaul.cdc_reader.capture.stored_positions import NOTHING_STORED, StoredPositions

POSITIONS = st.sets(st.tuples(st.integers(1, 8), st.integers(0, 12)), max_size=60)


def held_of(positions: set[tuple[int, int]]) -> StoredPositions:
    runs: list[list[int]] = []
    for lsn, ordinal in sorted(positions):
        if runs and runs[-1][0] == lsn and runs[-1][2] == ordinal - 1:
            runs[-1][2] = ordinal
        else:
            runs.append([lsn, ordinal, ordinal])
    return StoredPositions(*(np.array([run[i] for run in runs], np.uint64) for i in range(3)))


@given(POSITIONS, POSITIONS)
def test_missing_is_the_set_difference(stored: set[tuple[int, int]], streamed: set[tuple[int, int]]) -> None:
    rows = sorted(streamed)
    lsn = np.array([row[0] for row in rows], np.uint64)
    ordinal = np.array([row[1] for row in rows], np.uint64)
    held = held_of(stored)
    assert held.rows == len(stored)
    missing = held.missing(lsn, ordinal)
    assert {row for row, is_missing in zip(rows, missing, strict=True) if is_missing} == streamed - stored


def test_nothing_held_leaves_out_nothing() -> None:
    assert NOTHING_STORED.missing(np.array([1, 2], np.uint64), np.array([0, 0], np.uint64)).all()


def test_a_transaction_of_a_billion_rows_is_one_run() -> None:
    held = StoredPositions(np.array([7], np.uint64), np.array([0], np.uint64), np.array([10**9], np.uint64))
    missing = held.missing(np.array([7, 7], np.uint64), np.array([10**9, 10**9 + 1], np.uint64))
    assert missing.tolist() == [False, True]
