"""The example app as a process: what it is asked becomes rows in ClickHouse, once each, and nothing else does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from outhaul.sink.app import make_app
from tests.acceptance.metrics_pages import free_port, start
from tests.acceptance.test_flower import Web, hears, lines
from tests.conftest import World, until

if TYPE_CHECKING:
    from collections.abc import Iterator

APP = Path(__file__).parents[2] / "deploy" / "examples" / "webapp"
REQUESTS, CLIENTS = 1000, 20

LOOK_AT_ADMIN = """
from django.contrib.auth import get_user_model
from django.test import Client
client = Client()
client.force_login(get_user_model().objects.create_superuser("root"))
print(client.get("/admin/outhaul/outboxevent/").content.decode())
"""


def manage(world: World, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=APP,
        env={**os.environ, **world.env, "ENVIRONMENT": "test", "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@contextmanager
def the_app(world: World) -> Iterator[int]:
    """Run the app beside a pipeline; the block has its port."""
    manage(world, "migrate", "-v0")
    chosen = free_port()
    log = (world.logs / "webapp.log").open("wb")
    command = [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{chosen}"]
    env = {**os.environ, **world.env, "ENVIRONMENT": "test"}
    process = subprocess.Popen(command, cwd=APP, env=env, stdout=log, stderr=log)
    try:
        until(lambda: answers(chosen), what="the app answers")
        yield chosen
    finally:
        process.terminate()
        process.wait(20)
        log.close()


@pytest.fixture
def port(running: World) -> Iterator[int]:
    with the_app(running) as chosen:
        yield chosen


def answers(port: int) -> bool:
    try:
        return create(port, "{}") == 400
    except OSError:
        return False


def create(port: int, body: str) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/users", body, {"Content-Type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()


def user(number: int) -> str:
    return json.dumps({"name": f"user {number}", "email": f"{number}@example.com"})


@pytest.mark.thorough
def test_a_thousand_requests_at_once_are_a_thousand_events_once_each(running: World, port: int) -> None:
    assert [create(port, body) for body in (user(0), user(0), '{"name": "", "email": ""}')] == [201, 409, 400]
    # Every tenth address is asked for twice at the same time.
    asked = [user(number) for number in range(1, REQUESTS + 1) for _ in range(2 if number % 10 == 0 else 1)]
    with ThreadPoolExecutor(CLIENTS) as clients:
        codes = Counter(clients.map(lambda body: create(port, body), asked))
    assert codes == {201: REQUESTS, 409: REQUESTS // 10}
    running.assert_once_each()
    stored = running.clickhouse.rows("SELECT event_type, environment, event_context FROM event_log ORDER BY id")
    assert {row[:2] for row in stored} == {("user_created", "test")}
    contexts = [json.loads(row[2]) for row in stored]
    kept = running.conn.execute("SELECT id, name, email FROM users_user").fetchall()
    assert sorted(kept) == sorted((one["id"], one["name"], one["email"]) for one in contexts)
    assert len(kept) == 1 + REQUESTS
    assert "icon-yes" in manage(running, "shell", "-c", LOOK_AT_ADMIN)
    assert json.loads(manage(running, "outhaul_status", "--json"))["wrong"] == []


@pytest.mark.thorough
def test_a_request_shows_in_the_metrics_and_in_flower(world: World) -> None:
    # Asked for from the start, so that no task goes by unseen.
    pages = start(world, "reader", "worker", OUTHAUL_LOG_LEVEL="DEBUG")
    web = Web(world)
    try:
        until(web.is_up, what="Flower shows pages")
        asking = make_app(world.settings).control
        until(lambda: hears(asking), what="the worker answers")
        until(lambda: web.facts("/workers?json=1")["data"], what="Flower lists the worker")
        with the_app(world) as port:
            assert create(port, user(1)) == 201
            world.assert_once_each()
        (sent,) = until(lambda: lines(world, "reader", "batch_sent"), what="the reader's line")
        assert "1 rows" in web.task(sent["task"], "SUCCESS")["args"]
        until(lambda: pages.value("reader", "outhaul_reader_events_stored_total") == 1, what="the reader counts it")
        assert pages.value("reader", "outhaul_reader_events_captured_total") == 1
        assert pages.value("worker", "outhaul_worker_events_stored_total") == 1
    finally:
        web.process.kill()
        web.process.wait()


@pytest.mark.thorough
def test_a_database_of_the_release_before_needs_no_migration(world: World) -> None:
    # Django notes migrations and content types by the label, which was `outhaul` when the app was `producer.django`.
    manage(world, "migrate", "contenttypes", "-v0")
    noted = "INSERT INTO django_migrations (app, name, applied) VALUES ('outhaul', '0001_outbox', now())"
    world.conn.execute(noted)
    world.conn.execute("INSERT INTO django_content_type (app_label, model) VALUES ('outhaul', 'outboxevent')")
    assert "outhaul" not in manage(world, "migrate").partition("Running migrations:")[2]
    assert "[X] 0001_outbox" in manage(world, "showmigrations", "outhaul")
    assert "No changes" in manage(world, "makemigrations", "--check", "--dry-run")
    assert world.sql("SELECT count(*) FROM django_content_type WHERE model = 'outboxevent'") == 1


@pytest.mark.thorough
def test_the_app_has_tests_of_its_own_and_nothing_that_check_would_name(world: World) -> None:
    assert "no issues" in manage(world, "check", "--database", "default", "--fail-level", "WARNING")
    assert "No changes" in manage(world, "makemigrations", "--check", "--dry-run")
    assert "OK" in manage(world, "test")
    assert "no reader runs" in manage(world, "outhaul_status", code=1)
