"""A Redis of the user's own: any URL that redis-py takes, limits, renamed commands, other apps, changed passwords."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from outhaul.sink.errors import Exit
from tests.acceptance.commands import outhaul
from tests.acceptance.metrics_pages import free_port
from tests.clickhouse_proxy import Rules, proxy_before
from tests.conftest import World, until
from tests.faults.redis_servers import PASSWORD, Server
from tests.middle_boxes import program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    MakeWorld = Callable[..., World]


@contextmanager
def server(folder: Path, conf: str = "", **fields: Any) -> Iterator[Server]:
    made = Server(folder, conf=conf, **fields).start()
    try:
        yield made
    finally:
        made.kill()


def url_of(one: Server, rest: str = "/0") -> str:
    return f"redis://:{PASSWORD}@{one}{rest}"


# Any URL


FORMS = [
    "unix",
    pytest.param("?db=2", marks=pytest.mark.thorough),
    pytest.param("/3?socket_timeout=3&protocol=3&client_name=me", marks=pytest.mark.thorough),
    pytest.param("?protocol=2&socket_keepalive=true&health_check_interval=5", marks=pytest.mark.thorough),
]


@pytest.mark.parametrize("form", FORMS)
def test_a_url_in_any_form_of_redis_py_carries_events_and_the_doctor_s_questions(
    make_world: MakeWorld, tmp_path: Path, form: str
) -> None:
    # A path of a socket has 107 characters at most, and pytest's folder may be deep.
    with server(tmp_path, conf=f"unixsocket {tmp_path}/s\n") as own:
        url = f"unix://:{PASSWORD}@{tmp_path}/s?db=1" if form == "unix" else url_of(own, form)
        world = make_world(redis_url=url)
        world.pipeline.start("worker", "reader")
        world.insert(3)
        world.assert_once_each()
        found = json.loads(outhaul(world, "doctor", "--json").splitlines()[0])
        states = {one["check"]: one["state"] for one in found if one["group"] in {"Redis", "Celery"}}
        assert states["workers"] == "pass"
        assert "fail" not in states.values()


@pytest.mark.parametrize("rest", ["/shop", "/0?socket_timeout=0.1"])
def test_a_url_that_does_not_work_is_refused_before_the_first_event(world: World, rest: str) -> None:
    url = f"redis://127.0.0.1:1{rest}"
    for command in ("reader", "worker"):
        assert "OUTHAUL_REDIS_URL: " in outhaul(world, command, code=Exit.SETTINGS, OUTHAUL_REDIS_URL=url)


# Limits and renamed commands


@pytest.mark.parametrize("which", ["", pytest.param("redis-server", marks=pytest.mark.thorough)])
def test_a_redis_that_takes_no_full_batch_is_refused_at_the_start(
    make_world: MakeWorld, tmp_path: Path, which: str
) -> None:
    with server(tmp_path, conf="proto-max-bulk-len 1mb\n", program=which and program(which)) as own:
        world = make_world(redis_url=url_of(own))
        said = outhaul(world, "reader", code=Exit.REDIS_REFUSED)
        assert "Redis takes no value of 25,165,824 bytes" in said
        assert "CONFIG SET proto-max-bulk-len 512mb" in said
        assert "takes no value" in outhaul(world, "doctor", code=1)
        own.client().config_set("proto-max-bulk-len", 512 << 20)
        world.pipeline.start("worker", "reader")
        world.insert()
        world.assert_once_each()


def test_an_event_that_is_too_large_for_redis_is_named_and_stops_the_reader(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    with server(tmp_path, conf="proto-max-bulk-len 1mb\n") as own:
        world = make_world(redis_url=url_of(own), batch_max_bytes="1MiB")
        world.pipeline.start("worker", "reader")
        world.insert()
        world.assert_once_each()
        insert = (
            "INSERT INTO outbox (event_type, environment, event_context) SELECT 'large', 'test', "
            "jsonb_build_object('a', string_agg(md5(n::text), '')) FROM generate_series(1, 100000) AS n RETURNING id"
        )
        large = world.sql(insert)
        assert world.pipeline.wait("reader", 90) == Exit.REDIS_REFUSED
        line = world.pipeline.log("reader").splitlines()[-1]
        assert f"id {large}" in line
        assert "proto-max-bulk-len" in line
        own.client().config_set("proto-max-bulk-len", 512 << 20)
        world.pipeline.start("reader")
        world.assert_once_each()


@pytest.mark.parametrize("name", ["EVALSHA", pytest.param("BRPOP", marks=pytest.mark.thorough)])
def test_a_command_that_redis_lacks_is_named_at_the_start(make_world: MakeWorld, tmp_path: Path, name: str) -> None:
    with server(tmp_path, conf=f'rename-command {name} ""\n') as own:
        world = make_world(redis_url=url_of(own))
        for command in ("reader", "worker"):
            said = outhaul(world, command, code=Exit.REDIS_REFUSED)
            assert f"Redis does not have the command {name}, which outhaul or Celery needs" in said
            assert "rename-command" in said


@pytest.mark.parametrize("names", ["INFO EVAL", pytest.param("COMMAND CONFIG KEYS", marks=pytest.mark.thorough)])
def test_a_command_that_nobody_needs_may_be_missing(make_world: MakeWorld, tmp_path: Path, names: str) -> None:
    conf = "".join(f'rename-command {name} ""\n' for name in names.split())
    with server(tmp_path, conf=conf) as own:
        world = make_world(redis_url=url_of(own))
        world.pipeline.start("worker", "reader")
        world.insert(3)
        world.assert_once_each()
        assert "Traceback" not in world.pipeline.log("worker")
        if "INFO" in names:
            assert "Redis does not have the command INFO" in outhaul(world, "doctor", code=1)


# Other apps on the same database


def test_all_keys_begin_with_the_source_and_a_reader_of_the_release_before_is_served(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    with server(tmp_path) as own, own.client() as client:
        world = make_world(redis_url=url_of(own), pool=True)
        queue, key = world.settings.queue, world.settings.queue_key
        world.pipeline.start("reader")
        world.insert(3)
        until(lambda: client.llen(key) == 1, what="the batch is sent")
        # Where the release before has its queue.
        client.rename(key, queue)
        world.pipeline.start("worker")
        world.assert_once_each()
        world.insert(2)
        world.assert_once_each()
        prefix = f"outhaul:{{{world.settings.source}}}".encode()
        assert [key for key in client.scan_iter() if not key.startswith(prefix)] == []


# Changed passwords


def test_a_changed_password_of_redis_is_read_again_by_all_processes(make_world: MakeWorld, tmp_path: Path) -> None:
    with server(tmp_path) as own:
        secret = tmp_path / "redis_url"
        secret.write_text(url_of(own))
        world = make_world(redis_url=url_of(own), pool=True)
        del world.pipeline._env["OUTHAUL_REDIS_URL"]
        world.pipeline._env["OUTHAUL_REDIS_URL_FILE"] = str(secret)
        world.pipeline.start("worker", "reader")
        world.insert()
        world.assert_once_each()
        with own.client() as client:
            client.config_set("requirepass", "a-new-password")
            secret.write_text(url_of(own).replace(PASSWORD, "a-new-password"))
            client.execute_command("CLIENT", "KILL", "SKIPME", "yes")
        assert world.pipeline.wait("reader", 90) == Exit.REDIS_LOGIN
        world.pipeline.start("reader")
        world.payloads.close()
        world.insert()
        world.assert_once_each()
        assert world.pipeline._processes["worker"].poll() is None


def test_a_changed_password_of_clickhouse_is_read_again_by_the_worker(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(pool=True)
    rules = Rules(login="me:old")
    with proxy_before(world.env["OUTHAUL_CLICKHOUSE_URL"], rules) as through:
        secret = tmp_path / "clickhouse_url"

        def write(password: str) -> None:
            secret.write_text(f"http://me:{password}@{through.rpartition('@')[2].removeprefix('http://')}")

        write("old")
        del world.pipeline._env["OUTHAUL_CLICKHOUSE_URL"]
        world.pipeline._env["OUTHAUL_CLICKHOUSE_URL_FILE"] = str(secret)
        world.pipeline.start("worker", "reader")
        world.insert()
        world.assert_once_each()
        write("new")
        rules.login = "me:new"
        # The reader has been started again, the worker has not.
        world.pipeline.stop("reader")
        world.pipeline.start("reader")
        world.insert()
        world.assert_once_each()
        world.pipeline.check()
        assert "worker_restarting" in world.pipeline.log("worker")


def test_a_worker_whose_login_stays_refused_ends_and_the_reader_waits_for_another(
    make_world: MakeWorld,
) -> None:
    world = make_world(pool=True)
    rules = Rules(login="me:old")
    with proxy_before(world.env["OUTHAUL_CLICKHOUSE_URL"], rules) as through:
        old = f"http://me:old@{through.rpartition('@')[2].removeprefix('http://')}"
        world.pipeline.start("worker", OUTHAUL_CLICKHOUSE_URL=old)
        world.pipeline.start("reader")
        world.insert()
        world.assert_once_each()
        rules.login = "me:new"
        world.insert()
        assert world.pipeline.wait("worker", 90) == Exit.CLICKHOUSE_LOGIN
        trouble = until(lambda: (state := world.reader_state()) and state.trouble, what="the reader names the trouble")
        assert "wrong password" in trouble
        world.pipeline.start("worker", OUTHAUL_CLICKHOUSE_URL=old.replace("old", "new"))
        world.assert_once_each()
        world.pipeline.check()


def test_an_exporter_ends_when_its_password_was_changed_so_that_it_is_started_with_the_new_one(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    with server(tmp_path) as own:
        secret = tmp_path / "redis_url"
        secret.write_text(url_of(own))
        world = make_world(redis_url=url_of(own))
        del world.pipeline._env["OUTHAUL_REDIS_URL"]
        env = {"OUTHAUL_REDIS_URL_FILE": str(secret), "OUTHAUL_METRICS_PORT": str(free_port())}
        world.pipeline.start("exporter", **env)
        until(lambda: "exporting" in world.pipeline.log("exporter"), what="the exporter runs")
        with own.client() as client:
            client.config_set("requirepass", "a-new-password")
            client.execute_command("CLIENT", "KILL", "SKIPME", "yes")
        until(lambda: "look_failed" in world.pipeline.log("exporter"), what="a login is refused")
        world.pipeline.check()
        secret.write_text(url_of(own).replace(PASSWORD, "a-new-password"))
        assert world.pipeline.wait("exporter", 60) == Exit.REDIS_LOGIN
        assert "the secret was changed after this exporter had read it" in world.pipeline.log("exporter")
