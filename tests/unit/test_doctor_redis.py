"""The doctor's findings about Redis, Celery's workers and clocks."""

from dataclasses import replace
from typing import Any

import pytest

from outhaul.cdc_reader.operate.doctor import clock_offsets, redis_checks, worker_checks
from outhaul.cdc_reader.operate.doctor.finding import State
from outhaul.cdc_reader.session.loop import MAX_IN_FLIGHT_BYTES
from outhaul.sink.errors import TransientError
from outhaul.sink.process.probe import ProbeAnswer
from outhaul.sink.redis.failures import Failure
from outhaul.sink.settings import Settings
from outhaul.sink.task_names import PROBE, WRITE_BATCH

INFO = redis_checks.Info(
    product="redis",
    version="7.4.1",
    compatible="7.4.1",
    role="master",
    cluster=False,
    policy="noeviction",
    max_memory=0,
    used_memory=1000,
    persistence="none reported",
)
WORKER = worker_checks.Worker("one@host", frozenset({WRITE_BATCH, PROBE}), 80.0, 100.0, 300)
ANSWER = ProbeAnswer("host", "1.0", 0.05)
CLOCK = clock_offsets.Offset(0.0, 0.001)


def judged(
    trip_s: float = 0.001, refused: TransientError | None = None, info: redis_checks.Info = INFO
) -> dict[str, State]:
    return {one.check: one.state for one in redis_checks.judge(redis_checks.RedisFacts(info, refused, trip_s, CLOCK))}


def test_a_redis_as_it_should_be_has_nothing_to_mend() -> None:
    assert set(judged().values()) == {State.PASS}


def test_valkey_tells_its_own_version_and_what_it_is_compatible_with() -> None:
    info = redis_checks.read(
        {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.1.2", "aof_enabled": 1}
    )
    assert (info.product, info.version, info.compatible) == ("valkey", "9.1.2", "7.2.4")
    assert info.persistence == "append-only file"
    assert redis_checks.read({"redis_version": "6.2.0"}) == replace(
        INFO, version="6.2.0", compatible="6.2.0", used_memory=0
    )


@pytest.mark.parametrize(("version", "state"), [("6.0.16", State.FAIL), ("6.2.0", State.PASS), ("10.0.0", State.PASS)])
def test_redis_is_6_2_or_later(version: str, state: State) -> None:
    assert judged(info=replace(INFO, compatible=version))["version"] is state


@pytest.mark.parametrize(
    ("policy", "max_memory", "state"),
    [
        ("noeviction", 1 << 30, State.PASS),
        ("allkeys-lru", 1 << 30, State.FAIL),
        ("volatile-ttl", 1 << 30, State.WARN),
        ("allkeys-lru", 0, State.WARN),
        ("volatile-lru", 0, State.WARN),
    ],
)
def test_what_is_on_its_way_is_not_thrown_away(policy: str, max_memory: int, state: State) -> None:
    assert redis_checks.policy(policy, max_memory).state is state


@pytest.mark.parametrize(
    ("left", "state"),
    [
        (MAX_IN_FLIGHT_BYTES - 1, State.FAIL),
        (MAX_IN_FLIGHT_BYTES, State.WARN),
        (2 * MAX_IN_FLIGHT_BYTES - 1, State.WARN),
        (2 * MAX_IN_FLIGHT_BYTES, State.PASS),
    ],
)
def test_memory_is_left_for_what_may_be_in_flight(left: int, state: State) -> None:
    assert redis_checks.memory(replace(INFO, max_memory=1000 + left)).state is state


def test_a_replica_a_cluster_a_refused_payload_and_a_long_way_are_named() -> None:
    assert judged(info=replace(INFO, role="slave"))["role"] is State.FAIL
    assert judged(info=replace(INFO, cluster=True))["role"] is State.FAIL
    assert judged(refused=TransientError("Redis is full"))["takes a payload"] is State.FAIL
    assert judged(trip_s=0.011)["latency"] is State.WARN


def of_workers(*workers: worker_checks.Worker, queued: int = 0, **more: Any) -> dict[str, State]:
    facts = worker_checks.WorkerFacts(queued, workers, **{"probe": ANSWER, **more})
    return {one.check: one.state for one in worker_checks.judge(facts, Settings())}


def test_workers_with_our_task_and_our_limits_have_nothing_to_mend() -> None:
    assert of_workers(WORKER, replace(WORKER, name="two@host")) == {
        "workers": State.PASS,
        "task": State.PASS,
        "limits": State.PASS,
        "a task": State.PASS,
        "queue": State.PASS,
        "unexpected errors": State.PASS,
    }


def test_no_worker_matters_more_when_messages_wait() -> None:
    assert of_workers() == {"workers": State.WARN, "queue": State.PASS, "unexpected errors": State.PASS}
    assert of_workers(queued=1)["workers"] is State.FAIL


def test_a_worker_without_our_task_fails_and_other_limits_are_named() -> None:
    assert of_workers(WORKER, replace(WORKER, tasks=frozenset({"other"})))["task"] is State.FAIL
    for other in (
        replace(WORKER, hard_limit_s=60.0),
        replace(WORKER, soft_limit_s=None),
        replace(WORKER, visibility_timeout_s=3600),
    ):
        assert of_workers(WORKER, other)["limits"] is State.WARN


def test_a_task_that_nobody_answers_fails_unless_there_is_a_reason() -> None:
    assert of_workers(WORKER, probe=replace(ANSWER, error="no"))["a task"] is State.FAIL
    assert of_workers(WORKER, probe=None)["a task"] is State.FAIL
    assert of_workers(WORKER, probe=None, queued=1)["a task"] is State.WARN
    assert of_workers(WORKER, probe=None, is_busy=True)["a task"] is State.WARN
    # The release before does not know the task.
    older = replace(WORKER, tasks=frozenset({WRITE_BATCH}))
    assert of_workers(older, probe=None)["a task"] is State.WARN
    assert of_workers(older, WORKER)["a task"] is State.PASS


def test_a_failure_that_nobody_foresaw_fails_and_the_end_of_a_process_does_not() -> None:
    failure = Failure("worker", "host", 7, "KeyError", 1, 2.0, is_end=False)
    assert of_workers(WORKER, failures=(failure,))["unexpected errors"] is State.FAIL
    assert of_workers(WORKER, failures=(replace(failure, is_end=True),))["unexpected errors"] is State.PASS


def test_more_messages_than_a_reader_sends_are_too_many() -> None:
    assert of_workers(WORKER, queued=8)["queue"] is State.PASS
    assert of_workers(WORKER, queued=9)["queue"] is State.WARN


@pytest.mark.parametrize(
    ("ahead_s", "unsure_s", "state"),
    [
        ((0.0, 0.0), 0.0, State.PASS),
        ((0.99, 0.0), 0.0, State.PASS),
        ((1.0, 0.0), 0.0, State.WARN),
        ((-1.0, 0.0), 0.0, State.WARN),
        ((0.6, -0.6), 0.0, State.WARN),
        ((5.0, 0.0), 0.0, State.FAIL),
        ((3.0, -3.0), 0.0, State.FAIL),
        ((3.0, 0.0), 2.5, State.PASS),
    ],
)
def test_clocks_are_as_far_apart_as_is_certain(ahead_s: tuple[float, float], unsure_s: float, state: State) -> None:
    one, other = ahead_s
    offset = clock_offsets.Offset
    found = clock_offsets.judge({"Postgres": offset(one, unsure_s), "Redis": offset(other, 0.0)})
    assert found.state is state
    assert ("no position depends on a clock" in found.found) is (state is not State.PASS)


def test_a_clock_is_compared_with_the_middle_of_the_question() -> None:
    ours = iter([100.0, 102.0])
    assert clock_offsets.measured(lambda: 111.0, now=lambda: next(ours)) == clock_offsets.Offset(10.0, 1.0)
    assert clock_offsets.judge({}).state is State.WARN
