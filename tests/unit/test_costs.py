"""What the reader does for a row, counted: Python calls do not depend on the machine, so a regression fails here.

Each count is taken for a few rows and for many; what grows with the rows is what a row costs.
"""

from __future__ import annotations

import sys
import tracemalloc
from array import array
from typing import TYPE_CHECKING, Any, cast

import pytest

from outhaul.cdc_reader.capture.assemble import Assembly
from outhaul.cdc_reader.capture.decode import Decoder
from outhaul.cdc_reader.capture.frame import Run, server_status
from outhaul.cdc_reader.capture.stored_positions import NOTHING_STORED
from outhaul.cdc_reader.capture.wire import Wire
from outhaul.sink.position import Lsn
from tests.unit import pgoutput_frames as pg

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.postgres.slot import Link

FEW, MANY = 1_000, 20_000

# Arrow and NumPy may take another way for small inputs; a call a row would be twenty thousand.
SLACK_CALLS = 50


def calls(work: Callable[[], object]) -> int:
    """Count the calls of Python and C functions."""
    count = 0

    def note(_frame: object, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def run_of(rows: int, *, transactions: int) -> Run:
    """Return the frames of `rows` rows in `transactions` transactions, as one read returns them."""
    each = [range(start, rows, transactions) for start in range(transactions)]
    frames = [pg.begin(1), pg.relation(), pg.commit(1)]
    for number, ids in enumerate(each, 2):
        frames += [pg.begin(number * 100), *(pg.event(one) for one in ids), pg.commit(number * 100)]
    return Run(bytearray(b"".join(frames)), array("q", map(len, frames)))


def read_to_batches(run: Run) -> int:
    """Do all that is done between the socket and Redis; return the rows."""
    server_status(run)
    decoded = Decoder(pg.TABLES).decode([run.data[:]], run.lengths)
    assembly = Assembly(NOTHING_STORED, source="outhaul", events_table="event_log", dead_letters="letters")
    for segment in decoded.segments:
        assembly.add(segment)
    return sum(one.batch.rows for one in assembly.finish())


@pytest.mark.parametrize("rows_each", [1, 100], ids=["single rows", "transactions of a hundred"])
def test_no_call_is_made_for_a_row_or_a_transaction(rows_each: int) -> None:
    few, many = (run_of(rows, transactions=rows // rows_each) for rows in (FEW, MANY))
    assert read_to_batches(few) == FEW  # and imports, caches and tables of types are there
    less = calls(lambda: read_to_batches(few))
    more = calls(lambda: read_to_batches(many))
    assert less > 0
    assert more - less <= SLACK_CALLS


def test_rows_are_copied_once_on_their_way_to_a_batch() -> None:
    """Counted by what is allocated at the peak: positions of every value, and one column at a time."""
    run = run_of(MANY, transactions=MANY // 100)
    read_to_batches(run_of(FEW, transactions=1))
    tracemalloc.start()
    try:
        read_to_batches(run)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(run.data)


class Deaf:
    """A link that takes what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, message: bytes) -> None:
        self.sent.append(message)


def test_feedback_goes_out_once_an_interval_and_once_for_each_step_of_the_watermark() -> None:
    link = Deaf()
    wire = Wire(cast("Link", link), status_interval_s=1.0, receive_timeout_s=60.0, now=0.0)
    for millisecond in range(10_000):
        wire.keep_alive(Lsn(1 + millisecond // 2000), millisecond / 1000, reading=True)
    assert 10 <= len(link.sent) <= 15


def test_a_call_for_each_row_would_be_noticed() -> None:
    assert calls(lambda: [len(str(number)) for number in range(MANY)]) >= MANY
