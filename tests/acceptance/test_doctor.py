"""`outhaul doctor` as operators and scripts run it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.conninfo import make_conninfo

from tests import launch
from tests.conftest import World, until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

GROUPS = ["Postgres", "Both sides", "ClickHouse", "Redis", "Celery", "Clocks"]
# Nobody listens there.
DEAD = {
    "OUTHAUL_POSTGRES_DSN": "postgresql://app:very-secret@127.0.0.1:1/app",
    "OUTHAUL_CLICKHOUSE_URL": "http://app:very-secret@127.0.0.1:1/logs",
    "OUTHAUL_REDIS_URL": "redis://app:very-secret@127.0.0.1:1/0",
}


def run(env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return launch.run("doctor", *arguments, env={"COLUMNS": "120", **env})


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def in_state(done: subprocess.CompletedProcess[str], state: str) -> set[tuple[str, str]]:
    return {(line["group"], line["check"]) for line in lines(done) if line["state"] == state}


def test_a_running_pipeline_is_fine_and_its_warnings_alone_are_exit_code_0(running_pool: World) -> None:
    running_pool.insert(5)
    running_pool.assert_once_each()

    def answered() -> subprocess.CompletedProcess[str] | None:
        done = run(running_pool.env, "--json")
        return done if ("Celery", "workers") in in_state(done, "pass") else None

    done = until(answered, what="the worker answers")
    assert (done.returncode, done.stderr) == (0, "")
    assert in_state(done, "fail") == set()
    # What the embedded Postgres is like; a machine this busy may also answer late.
    assert in_state(done, "warn") - {("Redis", "latency"), ("Clocks", "clocks")} == {
        ("Postgres", "max_slot_wal_keep_size"),
        ("Postgres", "least privilege"),
    }
    assert {("Postgres", "slot in use"), ("Celery", "task"), ("Celery", "limits"), ("Both sides", "types")} <= in_state(
        done, "pass"
    )
    assert list(dict.fromkeys(line["group"] for line in lines(done))) == GROUPS
    assert all(line.keys() == {"group", "check", "state", "found", "fix"} for line in lines(done))
    assert all(bool(line["fix"]) is (line["state"] != "pass") for line in lines(done))


@pytest.mark.thorough
def test_the_screen_has_every_server_and_each_fix_in_one_piece(running: World) -> None:
    done = run(running.env)
    assert (done.returncode, done.stderr) == (0, "")
    printed = [line.strip() for line in done.stdout.splitlines()]
    assert [line for line in printed if line in GROUPS] == GROUPS
    assert len(printed) < 55
    fixes = [line["fix"] for line in lines(run(running.env, "--json")) if line["check"] == "max_slot_wal_keep_size"]
    assert fixes[0] in printed
    assert printed[-1].endswith(" warn, 0 fail")


def test_a_role_with_replication_and_one_grant_is_all_that_the_reader_needs(world: World) -> None:
    name = f"r_{world.settings.slot}"
    world.conn.execute(f"CREATE ROLE {name} LOGIN REPLICATION".encode())
    world.conn.execute(f"GRANT outhaul_reader TO {name}".encode())
    plain = {"OUTHAUL_POSTGRES_DSN": make_conninfo(world.dsn, user=name)}
    try:
        world.pipeline.start("worker", "reader", **plain)
        world.insert(5)
        world.assert_once_each()
        done = run(world.env | plain, "--json")
        assert done.returncode == 0
        assert ("Postgres", "least privilege") in in_state(done, "pass")
        assert ("Postgres", "SELECT") in in_state(done, "pass")
    finally:
        world.pipeline.stop()
        world.conn.execute(f"DROP ROLE {name}".encode())


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("dead", "groups"),
    [
        (("OUTHAUL_POSTGRES_DSN",), {"Postgres"}),
        (("OUTHAUL_CLICKHOUSE_URL",), {"ClickHouse"}),
        (("OUTHAUL_REDIS_URL",), {"Redis", "Celery"}),
        (tuple(DEAD), {"Postgres", "ClickHouse", "Redis", "Celery"}),
    ],
    ids=["postgres", "clickhouse", "redis", "all"],
)
def test_a_dead_server_is_one_line_and_the_others_are_checked(
    world: World, dead: tuple[str, ...], groups: set[str]
) -> None:
    done = run(world.env | {name: DEAD[name] for name in dead}, "--json")
    assert (done.returncode, done.stderr) == (1, "")
    assert in_state(done, "fail") == {(group, "answers") for group in groups}
    for group in groups:
        (line,) = [line for line in lines(done) if line["group"] == group]
        assert "does not answer" in line["found"]
        assert "reaches it" in line["fix"]
    others = {"Postgres", "ClickHouse", "Redis"} - groups
    assert {group for group, _ in in_state(done, "pass")} >= others
    assert "very-secret" not in done.stdout


def test_a_wrong_password_says_which_setting_to_check(world: World) -> None:
    url = world.env["OUTHAUL_CLICKHOUSE_URL"]
    wrong = url.replace(url.split("//")[1].split("@")[0], "outhaul:very-secret")
    done = run(world.env | {"OUTHAUL_CLICKHOUSE_URL": wrong})
    assert (done.returncode, done.stderr) == (1, "")
    assert "Check user and password in OUTHAUL_CLICKHOUSE_URL" in done.stdout
    assert "very-secret" not in done.stdout


@pytest.mark.thorough
def test_servers_without_our_tables_say_what_to_run(make_world: Any) -> None:
    done = run(make_world(setup=False).env, "--json")
    assert done.returncode == 1
    failed = {(line["group"], line["check"]): line["fix"] for line in lines(done) if line["state"] == "fail"}
    assert failed.keys() == {("Postgres", "outbox"), ("Postgres", "slot"), ("ClickHouse", "tables")}
    assert all("outhaul setup" in fix for fix in failed.values())


def test_settings_that_do_not_hold_are_one_line_and_their_own_exit_code(world: World) -> None:
    done = run(world.env | {"OUTHAUL_SLOT": "No Slot"})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert done.stderr.startswith("outhaul: the settings are invalid: slot: ")


def test_the_help_fits_one_screen_and_ends_with_an_example() -> None:
    done = run({"COLUMNS": "80"}, "--help")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) <= 24
    assert "Example: outhaul doctor --json" in done.stdout
    assert run({}, "--no-such-option").returncode == 2
