"""What the exporter makes of answers, without a server."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest

from outhaul.cdc_reader.operate.exporter.audit import joined
from outhaul.cdc_reader.operate.exporter.clickhouse_metrics import _of_partitions
from outhaul.cdc_reader.operate.exporter.collect import Poll, Polls
from outhaul.cdc_reader.operate.exporter.metric_family import gauge
from outhaul.sink.errors import TransientError
from outhaul.sink.telemetry.exposition import WithSource
from tests.conftest import until

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric


def test_intervals_that_meet_or_overlap_are_one() -> None:
    assert joined([(7, 9), (-5, 2), (3, 3), (8, 8), (12, 20), (13, 14)]) == [(-5, 3), (7, 9), (12, 20)]
    assert joined([]) == []


def test_all_months_but_the_newest_are_one_so_the_label_is_bounded() -> None:
    months = [[f"{2000 + n // 12}{n % 12 + 1:02}", 10, n, 100, 200] for n in reversed(range(60))]
    families = {family.name: family for family in _of_partitions(months)}
    events = {sample.labels["partition"]: sample.value for sample in families["outhaul_clickhouse_events"].samples}
    parts = {sample.labels["partition"]: sample.value for sample in families["outhaul_clickhouse_parts"].samples}
    assert len(events) == 25
    assert events["older"] == 36 * 10
    # The limit of parts is of each partition, so the fullest of the older ones counts.
    assert parts["older"] == 35
    assert next(iter(events)) == "200412"


def test_a_look_that_fails_takes_its_figures_away_and_one_that_works_brings_them_back() -> None:
    told: list[list[Metric] | Exception] = [
        [gauge("x", "x", 1)],
        TransientError("away"),
        ValueError("a defect"),
        [gauge("x", "x", 2)],
    ]
    answers = iter(told)
    turn = threading.Semaphore(0)

    def look() -> list[Metric]:
        turn.acquire()
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    polls = Polls([Poll("postgres", look, 0.001, up="1 while it answers")])
    registry = CollectorRegistry()
    registry.register(WithSource(polls, "orders"))

    def shown() -> str:
        return generate_latest(registry).decode()

    assert 'outhaul_postgres_up{source="orders"} 0.0' in shown()
    assert polls.ready() == "not polled yet: postgres"
    for expected in (
        'outhaul_x{source="orders"} 1.0',
        'up{source="orders"} 0.0',
        'failures_total{server="postgres",source="orders"} 2.0',
        'outhaul_x{source="orders"} 2.0',
    ):
        turn.release()
        until(lambda expected=expected: expected in shown(), what=expected)  # type: ignore[misc]
    assert polls.ready() == polls.alive() == ""
    polls.over.set()
    # Its last words must not stand among what another test prints.
    for thread in threading.enumerate():
        if thread.name == "outhaul-postgres":
            thread.join(10)
    turn.release()


def test_a_look_that_does_not_come_back_has_no_figures() -> None:
    poll = Poll("postgres", list, 5.0, families=[gauge("x", "x", 1)], began_at=100.0)
    assert poll.seen(now=129.0)
    assert not poll.seen(now=131.0)
