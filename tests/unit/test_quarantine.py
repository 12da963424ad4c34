"""A refused batch is halved until every good row is stored and every bad one is a dead letter."""

from dataclasses import dataclass, field

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outhaul.sink.batch import Message
from outhaul.sink.errors import FatalError, PoisonError, TooLargeError, TransientError
from outhaul.sink.quarantine import set_aside
from tests.unit.batches import batch_in_pieces, batch_of, message_of


@dataclass
class Refuser:
    """Takes rows unless one of them is poison; remembers what it took, by table and token."""

    poison: set[int]
    taken: dict[str, tuple[str, pa.RecordBatch]] = field(default_factory=dict)

    def __call__(self, message: Message, payload: bytes) -> None:
        records = pa.ipc.open_stream(payload).read_next_batch()
        if message.table == "event_log" and self.poison & set(records.column("id").to_pylist()):
            raise PoisonError("refused", code=6)
        assert message.token not in self.taken
        self.taken[message.token] = (message.table, records)


@given(st.integers(1, 40), st.sets(st.integers(0, 39), max_size=6), st.integers(1, 3))
def test_quarantine_stores_every_good_row_and_sets_aside_every_bad_one(
    count: int, poison: set[int], pieces: int
) -> None:
    batch = batch_in_pieces(list(range(count)), pieces)
    refuser = Refuser(poison)
    bad = poison & set(range(count))
    assert set_aside(message_of(batch), batch.payload, refuser, dead_letters="event_log_dead_letters") == len(bad)
    stored = [
        i for table, rows in refuser.taken.values() if table == "event_log" for i in rows.column("id").to_pylist()
    ]
    letters = [rows for table, rows in refuser.taken.values() if table != "event_log"]
    assert sorted(stored) == sorted(set(range(count)) - bad)
    assert sorted(rows.column("cdc_ordinal")[0].as_py() for rows in letters) == sorted(bad)
    for rows in letters:
        ordinal = rows.column("cdc_ordinal")[0].as_py()
        assert rows.column("row")[0].as_py() == b'{"id": "%d"}' % ordinal
        assert b"refused" in rows.column("reason")[0].as_py()


def test_a_batch_that_is_too_large_for_the_way_is_halved_and_a_single_event_is_named() -> None:
    batch = batch_of([5, 6, 7, 8])
    taken: list[int] = []

    def narrow(message: Message, payload: bytes) -> None:
        ids = pa.ipc.open_stream(payload).read_next_batch().column("id").to_pylist()
        if len(ids) > 1 or ids == [8]:
            raise TooLargeError("too many bytes", todo="Raise its limit")
        assert message.table == "event_log"
        taken.extend(ids)

    with pytest.raises(FatalError, match=r"the event at 0/9#3 with id 8 is too large .* Raise its limit"):
        set_aside(message_of(batch), batch.payload, narrow, dead_letters="event_log_dead_letters")
    assert taken == [5, 6, 7]


def test_quarantine_passes_other_errors_on() -> None:
    batch = batch_of([1, 2])

    def down(_message: Message, _payload: bytes) -> None:
        raise TransientError("gone")

    with pytest.raises(TransientError):
        set_aside(message_of(batch), batch.payload, down, dead_letters="d")
