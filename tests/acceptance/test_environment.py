"""The environment and the directory of an app that uses Celery, Flower, Redis and Django itself: nothing of it acts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psycopg.conninfo
import pytest

from outhaul.sink.errors import Exit
from tests.acceptance.commands import outhaul
from tests.conftest import World, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOBODY = "redis://127.0.0.1:1/0"
FILES = ("celeryconfig.py", "celery.py", "click.py", "flowerconfig.py", "kombu.py", "pyarrow.py", "redis.py")
# What Kubernetes sets in a namespace with services `redis`, `flower`, `outhaul-redis` and `outhaul-metrics`.
SERVICES = {
    f"{name}_{suffix}": value
    for name in ("REDIS", "FLOWER", "OUTHAUL_REDIS", "OUTHAUL_METRICS", "OUTHAUL_FLOWER")
    for suffix, value in (
        ("SERVICE_HOST", "10.0.0.7"),
        ("SERVICE_PORT", "9461"),
        ("PORT", "tcp://10.0.0.7:9461"),
        ("PORT_9461_TCP", "tcp://10.0.0.7:9461"),
        ("PORT_9461_TCP_ADDR", "10.0.0.7"),
    )
}
BROKERS = (
    *("BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_URL", "CELERY_BROKER_WRITE_URL"),
    *("CELERY_RESULT_BACKEND", "REDIS_URL", "RESULT_BACKEND"),
)


@pytest.fixture
def of_app(tmp_path: Path) -> dict[str, str]:
    """Return the environment of an app whose directory is `app`."""
    folder = tmp_path / "app"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text(f"raise AssertionError('outhaul imported {name} of the app')\n")
    (tmp_path / "metrics").mkdir()
    return {
        **SERVICES,
        **dict.fromkeys(BROKERS, NOBODY),
        "APP": "shop.celery",
        "CELERY_APP": "shop.celery",
        "CELERY_CONFIG_MODULE": "celeryconfig",
        "CELERY_CUSTOM_WORKER_POOL": "shop.pool:Pool",
        "CELERY_LOADER": "shop.loader:Loader",
        "CELERY_WORKER_CONCURRENCY": "none",
        "CELERY_WORKER_QUEUES": "shop",
        "CONFIG_MODULE": "celeryconfig",
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "FLOWER_BROKER_API": "http://127.0.0.1:1",
        "LOADER": "shop.loader:Loader",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
        "REDIS_HOST": "127.0.0.1",
    }


def test_the_variables_and_files_of_an_app_do_not_steer_outhaul(
    make_world: Callable[..., World], of_app: dict[str, str], tmp_path: Path
) -> None:
    world = make_world(pool=True, fork=False)
    there = ("env", "-C", str(tmp_path / "app"))
    world.pipeline.start("worker", "reader", via=there, **of_app)
    world.insert(5)
    world.assert_once_each()
    said = outhaul(world, "doctor", "--json", code=0, **of_app)
    found = {one["check"]: one for one in json.loads(said.splitlines()[0])}
    assert found["workers"]["state"] == "pass"
    assert not list((tmp_path / "metrics").iterdir()), "metrics went to the app's files"
    assert "is not a setting" not in said
    assert "AssertionError" not in world.pipeline.log("worker") + world.pipeline.log("reader")


def test_a_login_of_another_flower_is_refused_and_not_left_out_in_silence(world: World) -> None:
    said = outhaul(world, "flower", code=Exit.SETTINGS, FLOWER_BASIC_AUTH="ops:secret")
    assert "FLOWER_BASIC_AUTH has no effect on `outhaul flower`. Set OUTHAUL_FLOWER_BASIC_AUTH" in said


def test_the_doctor_names_variables_of_libpq_and_of_proxies(world: World) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(world.dsn)
    port = str(parts.pop("port"))
    dsn = psycopg.conninfo.make_conninfo("", **parts)
    env = {
        "OUTHAUL_POSTGRES_DSN": dsn,
        "PGPORT": port,
        "PGAPPNAME": "shop",
        "PGSSLMODE": "prefer",
        "http_proxy": "http://user:secret@127.0.0.1:1",
    }
    said = outhaul(world, "doctor", "--json", code=None, **env)
    found = {one["check"]: one["found"] for one in json.loads(said.splitlines()[0]) if one["group"] == "Environment"}
    assert found["libpq"] == "PGPORT, PGSSLMODE: libpq takes from them what OUTHAUL_POSTGRES_DSN leaves open"
    assert found["proxy"].startswith("http_proxy: ClickHouse is reached through this proxy")
    assert "secret" not in said


def test_a_pipeline_s_first_event_arrives_with_libpq_s_variables_in_place_of_a_dsn(world: World) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(world.pipeline._env["OUTHAUL_POSTGRES_DSN"])
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE", "password": "PGPASSWORD"}
    env = {names[name]: str(value) for name, value in parts.items() if name in names}
    world.pipeline.start("worker", "reader", OUTHAUL_POSTGRES_DSN="application_name=outhaul", **env)
    world.insert(2)
    until(lambda: world.stored() == 2, what="the events are stored")
