"""What reader, worker and exporter show is what docs/reference/metrics.md says, and true to the row."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.commands import outhaul, outhaul_here
from tests.acceptance.metrics_pages import free_port, start
from tests.acceptance.test_replay import lose
from tests.acceptance.test_watchdog import celery_of
from tests.conftest import World, until

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
ROW = re.compile(r"^\| `(outhaul_[a-z_]+)` \| (counter|gauge|histogram) \|", re.MULTILINE)


def documented() -> dict[str, str]:
    return dict(ROW.findall(DOCS.read_text()))


def test_every_metric_in_the_docs_is_served_and_no_other(world: World) -> None:
    pages = start(world, "worker", "reader", "exporter")
    world.insert(3)
    world.assert_once_each()
    until(lambda: pages.value("exporter", "outhaul_clickhouse_events") == 3, what="a look after the insert")
    until(lambda: pages.value("exporter", "outhaul_audit_compared_events") == 3, within_s=90, what="an audit")
    served: dict[str, str] = {}
    for name in pages.ports:
        families = pages.families(name)
        served |= {metric: family.type for metric, family in families.items()}
        samples = [sample for family in families.values() for sample in family.samples]
        assert {sample.labels["source"] for sample in samples} == {world.settings.source}
        check_by_promtool(pages.text(name))
    assert served == documented()
    assert pages.value("exporter", "outhaul_audit_missing_events") == 0
    # What an audit writes into the log is no app's event.
    assert pages.value("reader", "outhaul_reader_messages_ignored_total") == 0
    assert pages.answer("reader", "/elsewhere")[0] == 404

    # What is deleted is missing until somebody mends it; what nobody asked about changes nothing.
    lose(world, "id = 2")
    until(lambda: pages.value("exporter", "outhaul_audit_missing_events") == 1, within_s=90, what="the audit finds it")
    code, _, errors = outhaul_here(world.env, "verify", "--repair")
    assert code == 0, errors
    until(lambda: pages.value("exporter", "outhaul_audit_missing_events") == 0, within_s=90, what="it is mended")


def check_by_promtool(text: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        assert "CI" not in os.environ, "promtool is missing"
        return
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.thorough
def test_counters_agree_to_the_row_after_a_child_is_killed_and_the_pool_restarted(world: World, tmp_path: Path) -> None:
    points = tmp_path / "points"
    points.mkdir()
    pages = start(world, "worker", "reader", OUTHAUL_FAILPOINTS=str(points))

    def counted(metric: str, name: str) -> float | None:
        return pages.value(name, f"outhaul_{name}_{metric}_total")

    def worked() -> list[tuple[str, int]]:
        # On a busy machine a batch may be sent again while its first worker is still at it: then that is counted, too.
        lines = [json.loads(line) for line in world.pipeline.log("worker").splitlines() if line.startswith("{")]
        done = [line for line in lines if line["event"] == "batch_done" and line["outcome"] == "stored"]
        return [(line["token"], line["rows"]) for line in done]

    def agree(rows: int) -> bool:
        until(lambda: counted("events_stored", "reader") == rows, what="the reader has the reports")
        known = worked()
        assert sum(count for _, count in set(known)) == world.stored() == rows
        return counted("events_stored", "worker") == sum(count for _, count in known)

    world.insert(100)
    world.assert_once_each()
    until(lambda: agree(100), what="the worker counts what it says")
    # A child dies while it processes a batch; its successor stores the batch and continues its counters.
    (points / "task.fetched").write_text("kill")
    world.insert(10)
    world.assert_once_each()
    assert (points / "task.fetched.fired").exists()
    until(lambda: agree(110), what="the successor continues the counters")
    # The whole pool dies, and its parent with it; the watchdog starts another one.
    os.killpg(celery_of(world), signal.SIGKILL)
    world.insert(1)
    world.assert_once_each()
    until(lambda: agree(111), what="the new pool counts on")
    assert counted("events_captured", "reader") == 111
    assert pages.value("worker", "outhaul_worker_restarts_total", reason="ended") == 1
    assert pages.value("worker", "outhaul_worker_up") == 1
    until(lambda: pages.answer("worker", "/readyz")[0] == 200, what="the new worker is ready")


def test_a_server_that_is_away_has_no_figures_and_the_others_keep_theirs(world: World) -> None:
    pages = start(world, "exporter", OUTHAUL_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert pages.value("exporter", "outhaul_redis_up") == 0
    assert pages.value("exporter", "outhaul_queue_messages") is None
    assert pages.value("exporter", "outhaul_exporter_failures_total", server="redis") >= 1  # type: ignore[operator]
    assert pages.value("exporter", "outhaul_postgres_up") == 1
    assert pages.value("exporter", "outhaul_slot_active") == 0
    assert pages.value("exporter", "outhaul_slot_status", status="reserved") == 1
    world.sql("SELECT pg_drop_replication_slot(%s)", world.settings.slot)
    until(
        lambda: pages.value("exporter", "outhaul_slot_status", status="missing") == 1, what="the slot is seen missing"
    )
    assert pages.value("exporter", "outhaul_slot_retained_bytes") is None
    assert "look_failed" in world.pipeline.log("exporter")


def test_a_standby_is_ready_and_says_what_it_is(world: World) -> None:
    pages = start(world, "reader", "reader-2")
    stand_by = [name for name in pages.ports if pages.value(name, "outhaul_reader_phase", phase="standing_by")]
    assert len(stand_by) == 1
    assert pages.answer(stand_by[0], "/healthz") == (200, "ok\n")


@pytest.mark.thorough
@pytest.mark.parametrize("command", ["reader", "worker", "exporter"])
def test_a_port_that_is_taken_is_one_line(world: World, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = outhaul(world, command, code=3, OUTHAUL_METRICS_PORT=str(port))
    assert said.splitlines()[-1].startswith(f"outhaul: metrics cannot be served on 127.0.0.1:{port}")


def test_an_exporter_without_a_port_says_what_to_set(world: World) -> None:
    code, _, errors = outhaul_here(world.env, "exporter")
    assert code == 3
    assert "OUTHAUL_METRICS_PORT" in errors
