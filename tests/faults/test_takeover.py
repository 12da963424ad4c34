"""How long a second reader takes to go on where the first one died, fell asleep or lost its link; figures with -s."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from outhaul.cdc_reader.postgres.slot import open_link
from outhaul.deploy.demo.pipeline import Pipeline
from outhaul.deploy.local.fault_proxy import Proxy
from tests.acceptance.commands import asked
from tests.acceptance.load import wait_for_more
from tests.conftest import until
from tests.launch import OUTHAUL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from outhaul.deploy.local.stack import Stack
    from tests.conftest import World

WITHIN_S = 10.0
# What a small and busy machine may add.
GRACE_S = 5.0


@dataclass
class Two:
    """A pipeline whose active reader has links of its own, and another reader that waits."""

    world: World
    second: Pipeline
    postgres: Proxy
    redis: Proxy

    def epoch(self) -> int:
        return int(self.world.ch("SELECT max(epoch) FROM event_log_epochs"))

    def streams(self, since: int) -> bool:
        """Whether the second reader has taken over, and stored something since."""
        row = self.world.clickhouse.rows(
            f"SELECT max(epoch), (SELECT max(cdc_ingested_at) FROM event_log) > max(started_at) FROM event_log_epochs "
            f"HAVING max(epoch) > {since}"
        )
        return bool(row and row[0][1])


@pytest.fixture
def make_two(make_world: Callable[..., World], tmp_path: Path) -> Iterator[Callable[..., Two]]:
    with contextlib.ExitStack() as until_the_end:

        def make(user: str = "", before: LiteralString = "SELECT") -> Two:
            world = make_world()
            world.conn.execute(before)
            env = {}
            if user:
                world.conn.execute(f"CREATE ROLE {user} LOGIN REPLICATION")
                until_the_end.callback(_drop_role, world.stack, user)
                world.conn.execute(f"GRANT outhaul_reader TO {user}")
                env["OUTHAUL_POSTGRES_DSN"] = make_conninfo(world.dsn, user=user)
            parts = psycopg.conninfo.conninfo_to_dict(world.dsn)
            postgres = Proxy(int(str(parts["port"])))
            address, _, number = world.env["OUTHAUL_REDIS_URL"].rpartition("/")
            redis = Proxy(int(address.rpartition(":")[2]))
            logs = tmp_path / "second"
            logs.mkdir()
            second = Pipeline({**world.env, **env}, logs)
            for close in (second.kill, postgres.close, redis.close):
                until_the_end.callback(close)
            links = {
                "OUTHAUL_POSTGRES_DSN": make_conninfo(env.get("OUTHAUL_POSTGRES_DSN", world.dsn), port=postgres.port),
                "OUTHAUL_REDIS_URL": f"{address.rpartition(':')[0]}:{redis.port}/{number}",
            }
            world.pipeline.start("worker")
            world.pipeline.start("reader", **{**env, **links})
            until(lambda: (state := world.reader_state()) and state.phase == "streaming", what="the first streams")
            second.start("reader")
            until(lambda: asked(world, "status")["standby"], what="the second waits")
            return Two(world, second, postgres, redis)

        yield make


def _drop_role(stack: Stack, user: str) -> None:
    with psycopg.connect(stack.env()["OUTHAUL_POSTGRES_DSN"], autocommit=True) as admin:
        admin.execute(f"REVOKE outhaul_reader FROM {user}")
        admin.execute(f"DROP ROLE {user}")


def kill(two: Two) -> None:
    two.world.pipeline.kill("reader")


def sleep(two: Two) -> None:
    two.world.pipeline.signal("reader", signal.SIGSTOP)


def cut(two: Two) -> None:
    two.postgres.hold()


def heal(two: Two) -> None:
    two.postgres.heal()
    with contextlib.suppress(KeyError):
        two.world.pipeline.signal("reader", signal.SIGCONT)


@contextlib.contextmanager
def load(world: World, rate: int) -> Iterator[None]:
    """Commit `rate` events a second, and roll back some transactions; at the end, all are stored once."""
    command = [OUTHAUL, "load", "--rate", str(rate), "--transaction", "1-100", "--rollback", "0.1", "--json"]
    env = os.environ | world.env
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as writing:
        try:
            until(lambda: world.sql("SELECT count(*) FROM outbox") > rate, what="a second's events")
            yield
        finally:
            writing.send_signal(signal.SIGTERM)
            said, _ = writing.communicate()
    done = json.loads(said)
    assert world.sql("SELECT count(*) FROM outbox") == done["events"]
    world.assert_once_each()
    assert world.stored() == done["events"]


def take_over(two: Two, happens: Callable[[Two], None], within_s: float = WITHIN_S) -> None:
    """Let something happen to the first reader; the second one goes on within a stated time."""
    epoch, begun_at = two.epoch(), time.monotonic()
    happens(two)
    until(lambda: two.streams(epoch), within_s=within_s + GRACE_S, what="the second reader stores")
    print(f"{happens.__name__}: the second reader stores after {time.monotonic() - begun_at:.1f} s")


def wakes_up_as_a_standby(two: Two) -> None:
    """The first reader finds that its session is gone, and waits in its turn."""
    epoch, said = two.epoch(), two.world.pipeline.log("reader").count('"standing_by"')
    heal(two)
    until(lambda: two.world.pipeline.log("reader").count('"standing_by"') > said, what="the first stands by")
    assert two.epoch() == epoch, "and takes nothing back"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("happens", "rate"),
    [
        (kill, 5000),
        (sleep, 200),
        (sleep, 5000),
        (cut, 5000),
    ],
)
def test_a_second_reader_goes_on_within_ten_seconds(
    make_two: Callable[..., Two], happens: Callable[[Two], None], rate: int
) -> None:
    two = make_two()
    with load(two.world, rate):
        take_over(two, happens)
        if happens is kill:
            assert "silent_session_ended" not in two.second.log("reader")
        else:
            assert "it has stopped replying to Postgres" in two.second.log("reader")
            wakes_up_as_a_standby(two)
    assert two.world.sql("SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", two.world.settings.slot) == 1


@pytest.mark.thorough
@pytest.mark.timeout(240)
def test_a_role_that_may_not_see_sessions_judges_by_redis_and_never_by_a_redis_that_is_away(
    make_two: Callable[..., Two],
) -> None:
    two = make_two(user="plain_reader")
    with load(two.world, 1000):
        two.world.stack.kill("redis")
        time.sleep(15)
        two.world.stack.up()
        wait_for_more(two.world)
        time.sleep(15)
        assert two.epoch() == 1, "nobody took anything over"
        # Five seconds until the reader's last word expires, and seven of silence.
        take_over(two, sleep, within_s=15)
        assert "its reader publishes no state in Redis" in two.second.log("reader")
        wakes_up_as_a_standby(two)
    assert two.epoch() == 2


@pytest.mark.thorough
@pytest.mark.timeout(240)
def test_a_walsender_that_works_on_a_huge_transaction_is_left_alone(make_two: Callable[..., Two]) -> None:
    """Nothing of it is published, and each row costs a millisecond: no answer is taken for many seconds."""
    two = make_two(
        before="ALTER PUBLICATION outhaul SET TABLE outbox "
        "WHERE (event_type <> 'noise' OR length(repeat(md5(event_type), 100000)) < 0)"
    )
    two.world.insert(4_000, "noise")
    two.world.insert(10)
    begun_at = time.monotonic()
    until(lambda: two.world.stored() == 10, within_s=120, what="events behind it come")
    assert time.monotonic() - begun_at > WITHIN_S, "it was not large enough to tell"
    assert two.epoch() == 1
    assert "silent_session_ended" not in two.second.log("reader")


@pytest.mark.thorough
def test_a_session_of_another_tool_s_is_never_ended(make_world: Callable[..., World]) -> None:
    world = make_world()
    slot = world.settings.slot
    with closing(open_link(make_conninfo(world.dsn, application_name="a tool"), slot, "outhaul")) as tool:
        tool.start(binary=True)
        world.pipeline.start("reader")
        until(lambda: "standing_by" in world.pipeline.log("reader"))
        time.sleep(20)
        assert world.sql("SELECT active FROM pg_replication_slots WHERE slot_name = %s", slot)
    until(lambda: "streaming" in world.pipeline.log("reader"), what="it goes on when the tool ends")
