"""The fence, the wait and the questions of a reader whose statements reach another server than its workers' do.

The engine cannot replicate; two of them behind one address stand in for two replicas (tests/clickhouse_pair.py). A
replica that lags is one to which the test has not copied a row yet.
"""

from __future__ import annotations

import re
import threading
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from outhaul.cdc_reader.operate.setup import apply_clickhouse
from outhaul.cdc_reader.outbox.heal import verify
from outhaul.cdc_reader.outbox.id_ranges import Scope
from outhaul.cdc_reader.outbox.snapshot import now
from outhaul.cdc_reader.session.pause_requests import newest_request, record_request
from outhaul.cdc_reader.session.recovery import ask_stored_positions, recover
from outhaul.deploy.local.stack import Stack
from outhaul.sink import schema
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.clickhouse_errors import ACCESS_DENIED, THROW_IF
from outhaul.sink.errors import Exit, FatalError, PipelineError, TransientError
from outhaul.sink.fence import EpochOverError, as_owner, guard, newest_epoch, raise_epoch, wait_for_older_inserts
from outhaul.sink.insert import Target, batch_number, insert
from outhaul.sink.lanes import STREAM, mark
from outhaul.sink.position import History, Lsn
from outhaul.sink.push_again import is_everywhere
from outhaul.sink.replicas import Servers, find_servers
from outhaul.sink.settings import load_from
from outhaul.sink.view_gaps import StoredBatch, ViewFeed
from tests.clickhouse_pair import CLUSTER, Pair, pair_of
from tests.conftest import World, until
from tests.integration.test_exactly_once import batch_of, message_of, rows
from tests.remote_clickhouse import RemoteStack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.sink.settings import Settings, Stream

HISTORY = History("7", 1)
EPOCHS_KEY = "source, epoch, owner"
STORED_AT = "2026-01-01 00:00:00"


class Two:
    """A pipeline whose address of ClickHouse leads to two servers, both with its tables."""

    def __init__(self, world: World, pair: Pair) -> None:
        self.world, self.pair = world, pair
        self.settings: Settings = load_from(world.env | {"OUTHAUL_CLICKHOUSE_URL": pair.url(world.settings.source)})
        self.stream: Stream = self.settings.undivided
        self.clickhouse = ClickHouse.of(self.settings, timeout_s=30)

    def through(self, number: int | None) -> ClickHouse:
        """Let requests reach one of the servers, or both in turn."""
        self.pair.node = number
        return self.clickhouse

    def own(self, owner: str, epoch: int) -> None:
        raise_epoch(self.clickhouse, self.stream, HISTORY, Lsn(0), epoch, owner)

    def replicate_epochs(self, *, to: int) -> None:
        self.pair.replicate("event_log_epochs", to=to, key=EPOCHS_KEY)

    def store(self, number: int, lsn: int, identifier: int = 1) -> None:
        """Store a row on one server only."""
        with self.pair.client(number) as clickhouse:
            clickhouse.command(
                "INSERT INTO event_log (id, event_type, event_date_time, environment, event_context, cdc_source, "
                "cdc_lsn, cdc_ordinal, cdc_committed_at) SELECT {id:Int64}, 'x', toDateTime64({at:String}, 6, 'UTC'), "
                "'test', '{}', {source:String}, "
                "{lsn:UInt64}, 0, now()",
                parameters={"id": identifier, "source": self.settings.source, "lsn": lsn, "at": STORED_AT},
            )


@pytest.fixture(scope="module")
def second_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an engine beside the one of the stack; return its address."""
    stack = Stack(tmp_path_factory.mktemp("second"))
    stack.up(["clickhouse"])
    yield stack.env()["OUTHAUL_CLICKHOUSE_URL"]
    stack.down(["clickhouse"])


@pytest.fixture
def two(world: World, second_engine: str) -> Iterator[Two]:
    if isinstance(world.stack, RemoteStack):
        pytest.skip("needs two embedded engines, of which neither knows the other")
    with pair_of(world.env["OUTHAUL_CLICKHOUSE_URL"], second_engine, world.settings.source) as pair:
        with pair.client(2) as second:
            apply_clickhouse(second, world.settings, lambda _: None)
        made = Two(world, pair)
        yield made
        made.clickhouse.close()


@pytest.fixture
def replicas(two: Two) -> Two:
    """Two servers that answer as replicas in one cluster."""
    two.pair.cluster = True
    return two


def no_wait(_seconds: float) -> None:
    raise AssertionError("nothing is to be waited for")


def test_the_cluster_that_reaches_every_replica_is_found(replicas: Two) -> None:
    assert find_servers(replicas.clickhouse, replicas.settings) == Servers(CLUSTER, replicas.settings.source, 2)


@pytest.mark.thorough
def test_tables_of_one_server_are_asked_there(world: World) -> None:
    assert find_servers(world.clickhouse, world.settings) == Servers()


def test_a_cluster_that_does_not_reach_every_replica_is_refused(replicas: Two) -> None:
    replicas.pair.total = 3
    with pytest.raises(FatalError, match=r"3 replicas.*OUTHAUL_CLICKHOUSE_CLUSTER") as found:
        replicas.own("me", 1)
    assert found.value.exit_code is Exit.CLICKHOUSE_TABLE
    named = replicas.settings.model_copy(update={"clickhouse_cluster": CLUSTER})
    with pytest.raises(FatalError, match="'pair' reaches 2"):
        find_servers(replicas.clickhouse, named)


@pytest.mark.thorough
def test_a_cluster_that_does_not_exist_is_named_with_the_setting(replicas: Two) -> None:
    named = replicas.settings.model_copy(update={"clickhouse_cluster": "nowhere"})
    with pytest.raises(FatalError, match="Set OUTHAUL_CLICKHOUSE_CLUSTER") as found:
        find_servers(replicas.clickhouse, named)
    assert found.value.exit_code is Exit.CLICKHOUSE_TABLE


def test_a_user_who_may_not_ask_all_replicas_stops_the_reader(replicas: Two) -> None:
    replicas.pair.may_ask_all = False
    with pytest.raises(FatalError, match="GRANT REMOTE") as found:
        wait_for_older_inserts(replicas.clickhouse, replicas.settings, STREAM, no_wait)
    assert found.value.code == ACCESS_DENIED


def test_a_replica_that_does_not_answer_is_waited_for(replicas: Two) -> None:
    replicas.pair.silent = {2}
    with pytest.raises(TransientError, match="ALL_CONNECTION_TRIES_FAILED"):
        wait_for_older_inserts(replicas.clickhouse, replicas.settings, STREAM, no_wait)


def test_an_insert_that_runs_on_the_other_server_is_waited_for(replicas: Two) -> None:
    replicas.through(1)
    comment = mark(replicas.settings.source)
    with replicas.pair.client(2) as holding, replicas.pair.client(2) as looking:
        running = "SELECT count() FROM system.processes WHERE Settings['log_comment'] = {mark:String}"
        insert = threading.Thread(target=_run_until_killed, args=(holding, comment))
        insert.start()
        until(lambda: looking.rows(running, parameters={"mark": comment})[0][0], what="the insert runs")
        waits = []

        def wait(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                looking.command(f"KILL QUERY WHERE Settings['log_comment'] = '{comment}' SYNC")
                insert.join()

        wait_for_older_inserts(replicas.clickhouse, replicas.settings, STREAM, wait)
        assert len(waits) >= 3


def _run_until_killed(clickhouse: ClickHouse, comment: str) -> None:
    text = "SELECT sleepEachRow(0.05) FROM numbers(1200) SETTINGS max_block_size = 1"
    with pytest.raises(TransientError, match="QUERY_WAS_CANCELLED"):
        clickhouse.rows(text, settings={"log_comment": comment})


def test_the_wait_begins_when_every_server_refuses_older_inserts(replicas: Two) -> None:
    replicas.through(1)
    replicas.own("old", 1)
    replicas.replicate_epochs(to=2)
    replicas.own("new", 2)
    waits = []

    def wait(seconds: float) -> None:
        assert replicas.pair.client(2).rows("SELECT max(epoch) FROM event_log_epochs") == [(1,)]
        waits.append(seconds)
        replicas.replicate_epochs(to=2)

    wait_for_older_inserts(replicas.clickhouse, replicas.settings, STREAM, wait)
    assert len(waits) == 1


@pytest.mark.thorough
def test_a_server_that_never_gets_the_epoch_ends_the_recovery(replicas: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outhaul.sink.fence._POLL_S", 10.0)
    replicas.through(1)
    replicas.own("me", 1)
    with pytest.raises(TransientError, match="1 of 2 replicas of ClickHouse have not received the new epoch"):
        wait_for_older_inserts(replicas.clickhouse, replicas.settings, STREAM, lambda _: None)


def test_a_commit_that_keeper_may_still_carry_out_is_waited_for(replicas: Two) -> None:
    replicas.pair.session_s = [3600, 2]
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            replicas.pair.session_s = [3600, 60]

    wait_for_older_inserts(replicas.clickhouse, replicas.settings, STREAM, wait)
    assert len(waits) == 2


@pytest.mark.thorough
def test_a_newer_owner_whom_only_the_other_server_knows_is_seen(replicas: Two) -> None:
    replicas.through(2)
    replicas.own("other", 5)
    replicas.through(1)
    with pytest.raises(TransientError, match="another owner"):
        replicas.own("me", 1)


def test_a_recovery_holds_what_any_replica_has(replicas: Two) -> None:
    replicas.store(2, 800)
    replicas.through(1)
    held = ask_stored_positions(replicas.clickhouse, replicas.stream, replicas.settings.outboxes()[0], Lsn(0))
    assert held.rows == 1


def send(two: Two, *, again: bool = False) -> StoredBatch:
    """Insert a batch of three rows of one transaction, as a worker does."""
    batch = batch_of(two.world, rows(3, lsn=700))
    message = message_of(two.world, batch)
    servers = partial(find_servers, two.clickhouse, two.settings)
    target = Target(
        "event_log", "event_log_dead_letters", "event_log_view_gaps", guard(two.settings), 30, servers=servers
    )
    insert(two.clickhouse, message, batch.payload, target, again=again)
    return StoredBatch(batch_number(message), 700, 700)


def stored(two: Two, number: int) -> int:
    with two.pair.client(number) as clickhouse:
        return int(clickhouse.rows("SELECT count() FROM event_log")[0][0])


def tokens(two: Two) -> set[str]:
    """Return the tokens of all inserts."""
    return {token for text in two.pair.asked for token in re.findall(r"insert_deduplication_token\W+([\w/]+)", text)}


def test_a_batch_in_doubt_is_sent_again_whole_and_under_its_own_token(replicas: Two) -> None:
    replicas.through(1)
    replicas.own("me", 1)
    send(replicas)
    # Its rows are there, but nobody knows for how long: ClickHouse must confirm the whole batch.
    replicas.pair.asked.clear()
    send(replicas, again=True)
    first, second = (text for text in replicas.pair.asked if "INSERT INTO `event_log`" in text)
    assert "outhaul: stored already" in first
    assert "cdc_ordinal) NOT IN" not in first + second
    assert "cdc_batch != {batch:UInt64}" in second
    assert len(tokens(replicas)) == 1
    assert stored(replicas, 1) == 3


def test_a_replica_that_does_not_show_a_batch_in_doubt_lets_keeper_decide(replicas: Two) -> None:
    replicas.through(1)
    replicas.own("me", 1)
    send(replicas)
    # Each statement of the next attempt reaches the other server: the first one sees the batch, the next one does not.
    replicas.replicate_epochs(to=2)
    replicas.pair.order = lambda text: 2 if "cdc_batch != {batch:UInt64}" in text else 1
    send(replicas, again=True)
    assert stored(replicas, 2) == 3


def test_a_replica_that_has_not_received_the_rows_of_a_batch_does_not_end_the_session(two: Two) -> None:
    two.through(2)
    two.own("me", 1)
    send(two)
    with two.pair.client(2) as clickhouse:
        clickhouse.command("SYSTEM START MERGES event_log")
        clickhouse.command("ALTER TABLE event_log DELETE WHERE true SETTINGS mutations_sync = 2")
    with pytest.raises(EpochOverError):
        send(two, again=True)
    two.pair.cluster = True
    send(two, again=True)


def test_only_a_server_that_has_all_rows_of_a_batch_once_sends_it_again(replicas: Two) -> None:
    replicas.through(1)
    replicas.own("me", 1)
    replicas.replicate_epochs(to=2)
    batch = send(replicas)
    feed = ViewFeed(replicas.clickhouse, replicas.settings.outboxes()[0], "event_log", STREAM, "me")
    replicas.through(2)
    with pytest.raises(TransientError, match="has not received all rows"):
        feed.push(batch)
    replicas.through(1)
    assert feed.push(batch)
    with replicas.pair.client(1) as clickhouse:
        clickhouse.command("INSERT INTO event_log SELECT * FROM event_log LIMIT 1")
    with pytest.raises(TransientError, match="has not received all rows"):
        feed.push(batch)


def test_recovery_sends_what_any_server_shows_even_without_views_and_then_asks(replicas: Two) -> None:
    replicas.through(1)
    replicas.own("me", 1)
    send(replicas)
    replicas.pair.session_s = [3600, 3600]

    def wait(_seconds: float) -> None:
        replicas.replicate_epochs(to=2)

    replicas.pair.asked.clear()
    found = recover(replicas.clickhouse, replicas.stream, HISTORY, Lsn(0), "next", wait)
    assert found.held["event_log"].rows == 3
    steps = [
        name
        for text in replicas.pair.asked
        for name, words in (("push", "INSERT INTO `event_log` ("), ("ask", "min(cdc_ordinal) AS first"))
        if words in text
    ]
    assert steps == ["push", "ask"]
    assert stored(replicas, 1) == 3


@pytest.mark.thorough
def test_a_recovery_follows_the_newest_epoch_that_any_server_has(replicas: Two) -> None:
    replicas.through(1)
    replicas.own("me", 5)
    replicas.store(1, 900)
    replicas.through(2)
    found = recover(
        replicas.clickhouse, replicas.stream, HISTORY, Lsn(0), "next", lambda _: replicas.replicate_epochs(to=1)
    )
    assert (found.epoch, found.held["event_log"].rows) == (6, 1)
    other = History("8", 1)
    with pytest.raises(FatalError, match="system 7"):
        recover(replicas.clickhouse, replicas.stream, other, Lsn(0), "next", no_wait)


@pytest.mark.thorough
def test_a_view_is_filled_when_every_server_has_the_batch(replicas: Two) -> None:
    replicas.through(1)
    replicas.own("me", 1)
    batch = send(replicas)
    bound = {"source": replicas.settings.source, "first_lsn": 700, "last_lsn": 700}
    servers = find_servers(replicas.clickhouse, replicas.settings)
    assert not is_everywhere(replicas.clickhouse, "event_log", servers, batch.number, bound)
    replicas.pair.replicate("event_log", to=2, key="cdc_lsn, cdc_ordinal")
    assert is_everywhere(replicas.clickhouse, "event_log", servers, batch.number, bound)


def test_a_row_that_is_only_late_is_not_missing(replicas: Two) -> None:
    replicas.world.insert(2)
    replicas.world.conn.execute("UPDATE outbox SET event_date_time = %s", [f"{STORED_AT}+00"])
    replicas.store(1, 800, identifier=1)
    replicas.store(2, 801, identifier=2)
    for number in (1, 2):
        replicas.through(number)
        with now(replicas.settings) as line:
            tally = verify(replicas.settings.outboxes()[0], line, Scope(), lambda *_: None)
        assert tally.missing == 0


@pytest.mark.thorough
def test_a_pause_is_seen_on_every_server(replicas: Two) -> None:
    for number in (1, 2):
        record_request(
            replicas.through(number), replicas.settings, is_paused=number == 2, for_s=0, by="me", reason=str(number)
        )
    pause = newest_request(replicas.through(1), replicas.settings).pause
    assert pause is not None
    assert pause.reason == "2"


REFUSED = FatalError("DB::Exception: outhaul: a newer reader has taken over", code=THROW_IF)


def translated(two: Two, epoch: int, owner: str) -> PipelineError:
    """Return what becomes of a refusal by the fence under an epoch."""
    with (
        pytest.raises(PipelineError) as found,
        as_owner(two.clickhouse, two.settings, STREAM, epoch, owner),
    ):
        raise REFUSED
    return found.value


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("epoch", "owner", "expected"),
    [
        (2, "new", TransientError),  # the server lacks the epoch
        (1, "old", TransientError),  # another server has refused, and this one has the epoch
        (1, "older", EpochOverError),
        (0, "oldest", EpochOverError),
    ],
)
def test_a_refusal_by_a_replica_that_lags_is_not_the_end_of_the_reader(
    replicas: Two, epoch: int, owner: str, expected: type[TransientError]
) -> None:
    replicas.through(1)
    replicas.own("old", 1)
    assert type(translated(replicas, epoch, owner)) is expected


@pytest.mark.thorough
def test_a_new_column_is_waited_for_on_every_replica(replicas: Two) -> None:
    replicas.through(1)
    new = pa.schema([pa.field("new", pa.int64(), metadata={"clickhouse": "Nullable(Int64)"})])
    assert "new" not in schema.ensure_columns(replicas.clickhouse, "event_log", new)
    (added,) = (text for text in replicas.pair.asked if "ADD COLUMN" in text)
    assert "alter_sync=2" in added
    assert "new" in schema.ensure_columns(replicas.clickhouse, "event_log", new)


@pytest.mark.thorough
def test_a_table_that_is_not_replicated_beside_one_that_is_stops_the_reader(replicas: Two) -> None:
    replicas.through(1)
    schema.check(replicas.clickhouse, replicas.settings)
    replicas.pair.alone = {"event_log_epochs"}
    with pytest.raises(FatalError, match=r"event_log_epochs .* of one server"):
        schema.check(replicas.clickhouse, replicas.settings)


def test_servers_that_share_no_tables_are_named_before_the_first_event(two: Two) -> None:
    two.through(None)
    with pytest.raises(FatalError, match="several servers answer") as found:
        recover(two.clickhouse, two.stream, HISTORY, Lsn(0), "me", no_wait)
    assert found.value.exit_code is Exit.CLICKHOUSE_TABLE


@pytest.mark.thorough
def test_a_worker_whose_server_has_another_fence_names_it(two: Two) -> None:
    two.through(1)
    two.own("me", 1)
    two.through(2)
    found = translated(two, 1, "me")
    assert isinstance(found, FatalError)
    assert "several servers answer" in found.message


@pytest.mark.thorough
def test_another_throw_if_is_left_as_it_is(two: Two) -> None:
    two.through(1)
    two.own("me", 1)
    assert translated(two, 1, "me") is REFUSED
    assert newest_epoch(two.clickhouse, two.settings, STREAM) is not None
