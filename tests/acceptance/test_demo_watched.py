"""A real Prometheus watches the demo for a minute: it sees what docs/reference/metrics.md lists, each row once."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import psycopg
import pytest

from outhaul.deploy.local.stack import Stack
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.settings import load
from tests.acceptance.metrics_pages import Pages
from tests.acceptance.test_metrics import check_by_promtool, documented
from tests.conftest import until
from tests.launch import OUTHAUL
from tests.prometheus import Prometheus, scraping

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTE_S = 60
ROWS = 30_000
DEAD = 1
INSERT = (
    "INSERT INTO outbox (event_type, event_date_time, environment, event_context) "
    "SELECT 'watched', {at}, 'test', '{{}}' FROM generate_series(1, {count})"
)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[tuple[Stack, Pages]]:
    """Run the demo and leave it running for the test."""
    folder = tmp_path / "demo"
    command = [OUTHAUL, "demo", "--keep", "--rows", str(ROWS), "--data-dir", str(folder)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=170)
    try:
        assert done.returncode == 0, done.stderr
        found = re.findall(r"(\w+): metrics on http://127\.0\.0\.1:(\d+)/metrics", done.stdout)
        yield Stack(folder), Pages({name: int(port) for name, port in found})
    finally:
        subprocess.run([OUTHAUL, "local", "down", "--data-dir", str(folder)], check=True, timeout=90)
        assert living_in(tmp_path) == []


def living_in(folder: Path) -> list[int]:
    """Return the processes that were started in a folder."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            if link.readlink() == folder:
                found.append(int(link.parent.name))
    return found


def celery_of(folder: Path) -> int:
    """Return the process group of Celery below the watchdog."""
    (found,) = {
        os.getpgid(pid) for pid in living_in(folder) if b"celery" in Path(f"/proc/{pid}/cmdline").read_bytes().lower()
    }
    return found


def kill_a_child(folder: Path) -> None:
    celery = celery_of(folder)
    children = Path(f"/proc/{celery}/task/{celery}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)


def kill_the_pool(folder: Path) -> None:
    os.killpg(celery_of(folder), signal.SIGKILL)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_prometheus_watches_the_demo_for_a_minute(
    demo: tuple[Stack, Pages], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, pages = demo
    for name, value in stack.env().items():
        monkeypatch.setenv(name, value)
    settings = load()
    clickhouse = ClickHouse(settings.clickhouse_url.get_secret_value(), timeout_s=30)

    def stored() -> int:
        found: int = clickhouse.rows("SELECT count() FROM event_log")[0][0]
        return found

    with scraping(pages.ports, settings.source, tmp_path) as prometheus:
        with psycopg.connect(settings.postgres_dsn.get_secret_value(), autocommit=True) as conn:
            conn.execute(INSERT.format(at="'infinity'", count=DEAD))
            for kill in (kill_a_child, kill_the_pool, lambda _folder: None):
                ends = time.monotonic() + MINUTE_S / 3
                while time.monotonic() < ends:
                    conn.execute(INSERT.format(at="now()", count=100))
                    time.sleep(0.05)
                kill(tmp_path)
            (committed,) = conn.execute("SELECT count(*) FROM outbox").fetchone() or (0,)
        until(lambda: stored() == committed - DEAD, what="all is stored")
        for expected in (
            f"outhaul_reader_events_captured_total == {committed}",
            f"outhaul_reader_events_stored_total == {committed}",
            # Who stored a batch and died before saying so has a successor who says it, too.
            f"outhaul_worker_events_stored_total >= {committed}",
        ):
            until(partial(prometheus.ask, expected), what=expected)
        assert total(prometheus, "sum(outhaul_worker_restarts_total)") == 1
        assert total(prometheus, "sum(outhaul_reader_events_dead_lettered_total)") == DEAD
        assert named(prometheus) == documented()
    for name in pages.ports:
        check_by_promtool(pages.text(name))


def total(prometheus: Prometheus, expression: str) -> float:
    return float(prometheus.ask(expression)[0]["value"][1])


def named(prometheus: Prometheus) -> dict[str, str]:
    """Return the `outhaul_*` metrics that Prometheus has scraped, and their types."""
    with urlopen(f"http://127.0.0.1:{prometheus.port}/api/v1/metadata", timeout=20) as answer:
        metadata = json.load(answer)["data"]
    ours = {name: found[0]["type"] for name, found in metadata.items() if name.startswith("outhaul_")}
    # In OpenMetrics, which Prometheus asks for, a counter's family is named without its suffix.
    return {f"{name}_total" if kind == "counter" else name: kind for name, kind in ours.items()}
