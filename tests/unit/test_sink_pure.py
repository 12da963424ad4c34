"""Backoff, latencies, ledger, quarantine and the statement text: the sink's and the reader's small pure parts."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_reader.assemble import Assembled
from cdc_reader.latency import Latencies
from cdc_reader.ledger import Health, Ledger, Phase
from sink.batch import Message, pack
from sink.codes import POISON, TRANSIENT, error_of
from sink.errors import Exit, FatalError, PoisonError, TransientError
from sink.insert import settings as insert_settings
from sink.insert import statement
from sink.position import Lsn, Position
from sink.quarantine import DEAD_LETTER_SCHEMA, set_aside
from sink.retry import backoff_s


@given(st.integers(1, 10_000), st.floats(0, 0.999))
def test_backoff_grows_to_its_cap_and_never_becomes_a_busy_loop(attempt, random):
    wait = backoff_s(attempt, max_s=30.0, random=random)
    assert 0.1 <= wait <= 30.0
    assert backoff_s(attempt + 1, max_s=30.0, random=random) >= wait


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=300))
def test_quantiles_are_within_a_bucket(values):
    latencies = Latencies()
    latencies.observe(np.array(values))
    median = float(np.quantile(values, 0.5, method="inverted_cdf"))
    found = latencies.quantile(0.5)
    assert found is not None
    assert median <= found * 1.0001
    assert found <= max(median * 1.2001, 0.001)


def test_quantiles_of_nothing_are_unknown():
    assert Latencies().quantile(0.5) is None


def batch_of(values, **names):
    fields = [pa.field("id", pa.int64(), metadata={"clickhouse": "Int64"}), *list(DEAD_LETTER_SCHEMA)[2:]]
    count = len(values)
    columns = [
        pa.array(values, pa.int64()),
        pa.array([9] * count, pa.uint64()),
        pa.array(range(count), pa.uint64()),
        pa.array([0] * count, pa.timestamp("us", "UTC")),
    ]
    records = pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
    return pack("outhaul", "event_log", records, Position(Lsn(9), 0), Position(Lsn(9), count - 1))


def message_of(batch, sequence=0):
    return Message.of(batch, source="outhaul", epoch=1, owner="me", sequence=sequence, attempt=0)


@dataclass
class Refuser:
    """Takes rows unless one of them is poison; remembers what it took, by table and token."""

    poison: set
    taken: dict = field(default_factory=dict)

    def __call__(self, message, payload):
        records = pa.ipc.open_stream(payload).read_next_batch()
        if message.table == "event_log" and self.poison & set(records.column("id").to_pylist()):
            raise PoisonError("refused", code=6)
        assert message.token not in self.taken
        self.taken[message.token] = (message.table, records)


@given(st.integers(1, 40), st.sets(st.integers(0, 39), max_size=6))
def test_quarantine_stores_every_good_row_and_sets_aside_every_bad_one(count, poison):
    batch = batch_of(list(range(count)))
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


def test_quarantine_passes_other_errors_on():
    batch = batch_of([1, 2])

    def down(_message, _payload):
        raise TransientError("gone")

    with pytest.raises(TransientError):
        set_aside(message_of(batch), batch.payload, down, dead_letters="d")


def ledger_with(*sequences):
    ledger = Ledger(120.0)
    for sequence in sequences:
        batch = batch_of([sequence])
        ledger.add(message_of(batch, sequence), Assembled(batch, None, np.array([sequence * 1_000_000])))
    return ledger


IDLE = Health(0, frozenset())


def test_an_unanswered_message_is_sent_again_once_and_only_after_it_was_sent():
    ledger = ledger_with(0, 1)
    assert ledger.decide_again(1e9, IDLE) == []
    ledger.heard(0, Phase.SENT, now=10.0)
    assert ledger.decide_again(14.9, IDLE) == []
    assert ledger.decide_again(15.0, IDLE) == [0]
    entry = ledger.again(0)
    assert entry is not None
    assert entry.message.attempt == 1
    assert ledger.again(0) is None
    assert ledger.decide_again(1e9, IDLE) == []


def test_patience_doubles_with_every_sending_up_to_its_bound():
    ledger = ledger_with(0)
    waits = []
    for _ in range(8):
        ledger.heard(0, Phase.SENT, now=0.0)
        waits.append(next(n for n in range(1000) if ledger.decide_again(float(n), IDLE)))
        ledger.again(0)
    assert waits == [5, 10, 20, 40, 80, 120, 120, 120]


def test_a_message_that_may_still_be_queued_is_left_alone():
    ledger = ledger_with(0)
    ledger.heard(0, Phase.SENT, now=0.0)
    assert ledger.decide_again(1e6, Health(1, frozenset())) == []


def test_a_batch_whose_worker_shows_no_sign_of_life_is_sent_again_at_once():
    ledger = ledger_with(0)
    token = ledger.entries[0].message.token
    ledger.heard(0, Phase.SENT, now=0.0)
    ledger.heard(0, Phase.BEGUN, now=1.0)
    assert ledger.begun_tokens() == (token,)
    assert ledger.decide_again(1e6, Health(0, frozenset([token]))) == []
    assert ledger.decide_again(2.9, IDLE) == []
    assert ledger.decide_again(3.0, IDLE) == [0]


def test_a_retrying_task_gets_the_time_it_asked_for():
    ledger = ledger_with(0)
    ledger.heard(0, Phase.SENT, now=0.0)
    ledger.heard(0, Phase.RETRYING, now=0.0, wait_s=30.0)
    assert ledger.decide_again(34.9, IDLE) == []
    assert ledger.decide_again(35.0, IDLE) == [0]


def test_words_of_an_earlier_sending_do_not_count_for_the_next():
    ledger = ledger_with(0)
    ledger.heard(0, Phase.SENT, now=0.0)
    ledger.again(0)
    ledger.heard(0, Phase.BEGUN, now=1.0)
    assert ledger.entries[0].phase is Phase.WAITING
    ledger.heard(0, Phase.SENT, now=2.0)
    ledger.heard(0, Phase.BEGUN, now=3.0)
    ledger.heard(0, Phase.SENT, now=4.0)
    assert ledger.entries[0].phase is Phase.BEGUN


def test_only_the_batch_that_was_announced_settles():
    ledger = ledger_with(3)
    token = ledger.entries[3].message.token
    assert ledger.settle(3, "another") is None
    assert ledger.settle(4, token) is None
    assert ledger.oldest_commit_us() == 3_000_000
    assert ledger.settle(3, token) is not None
    assert ledger.oldest_commit_us() is None


def test_the_tables_of_codes_do_not_overlap():
    assert not TRANSIENT.keys() & POISON.keys()


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [
        (None, TransientError, Exit.CLICKHOUSE_UNREACHABLE),
        (252, TransientError, Exit.CLICKHOUSE_UNREACHABLE),
        (6, PoisonError, Exit.NOT_FINE),
        (60, FatalError, Exit.CLICKHOUSE_TABLE),
        (516, FatalError, Exit.CLICKHOUSE_LOGIN),
        (99999, FatalError, Exit.CLICKHOUSE_REFUSED),
    ],
)
def test_codes_sort_into_wait_set_aside_and_stop(code, kind, exit_code):
    error = error_of(code, "first line\nsecond line")
    assert type(error) is kind
    assert error.exit_code == exit_code
    assert "second" not in str(error)


def test_the_statement_names_columns_fence_and_what_is_held_only_when_sent_again():
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), metadata={"clickhouse": "Int64"}),
            pa.field("odd `name'", pa.binary(), metadata={"clickhouse": "Nullable(String)"}),
            pa.field("event_date_time", pa.timestamp("us"), metadata={"clickhouse": "Nullable(DateTime64(6, 'UTC'))"}),
        ]
    )
    first = statement("event_log", "event_log_epochs", schema, again=False)
    assert "INSERT INTO event_log (`id`, `odd \\`name'`, `event_date_time`, cdc_source)" in first
    assert "coalesce(event_date_time, cdc_committed_at)" in first
    assert "throwIf" in first
    assert "NOT IN" not in first
    assert "NOT IN" in statement("event_log", "event_log_epochs", schema, again=True)


def test_an_insert_is_synchronous_deduplicated_and_bounded():
    found = insert_settings(message_of(batch_of([1])), 60.0)
    assert found["async_insert"] == 0
    assert found["insert_deduplication_token"]
    assert found["max_execution_time"] == 60
