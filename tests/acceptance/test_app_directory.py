"""Commands started in an app's directory, which is full of names that outhaul once had or that it imports.

The directory is also on PYTHONPATH. Each of its modules fails when it is imported, and its SQL would leave a table.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from outhaul.deploy.local.stack import Stack
from tests import roles
from tests.conftest import World, until
from tests.package import ROOT, Installed, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MODULES = (
    "cdc_reader.py",
    "deploy/__init__.py",
    "producer.py",
    "sink/__init__.py",
    "sink/app.py",
    "sql/__init__.py",
)
# On PYTHONPATH these would replace the libraries for every program; in the working directory they must not.
ONLY_HERE = ("celery.py", "outhaul.py")
SQL = ("sql/postgres/0000_mine.sql", "sql/postgres/0001_outbox.sql", "sql/clickhouse/0000_mine.sql")


def fill(folder: Path, modules: tuple[str, ...]) -> None:
    for name in modules:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"raise AssertionError('outhaul imported {name} of the app')\n")
    for name in SQL:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("CREATE TABLE mine (n int);\n")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Make a directory of an app; return where it is."""
    folder = tmp_path / "app"
    fill(folder, (*MODULES, *ONLY_HERE))
    fill(tmp_path / "path", MODULES)
    return folder


def here(app: Path, env: dict[str, str]) -> dict[str, str]:
    return os.environ | env | {"PYTHONPATH": str(app.with_name("path"))}


@pytest.mark.thorough
def test_help_and_printed_sql_are_those_of_an_empty_directory(
    installed: Installed, app: Path, make_world: Callable[..., World], tmp_path: Path
) -> None:
    world = make_world(setup=False)
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments in (("--help",), ("setup", "--print-sql"), ("assets", "export", "--list")):
        expected = run(installed.outhaul, *arguments, cwd=empty, env=os.environ | world.env)
        assert run(installed.outhaul, *arguments, cwd=app, env=here(app, world.env)) == expected
        assert "mine" not in expected


@pytest.mark.thorough
def test_setup_applies_nothing_of_the_apps_and_a_worker_stores_batches(
    installed: Installed, app: Path, make_world: Callable[..., World]
) -> None:
    world = make_world(setup=False)
    run(installed.outhaul, "setup", cwd=app, env=here(app, world.env))
    assert world.sql("SELECT to_regclass('mine')") is None
    assert world.sql("SELECT to_regclass('outbox')") is not None
    env = here(app, roles.for_processes(world.env))
    with (world.logs / "processes.log").open("wb") as log:
        processes = [
            subprocess.Popen([installed.outhaul, command], cwd=app, env=env, stdout=log, stderr=log)
            for command in ("worker", "reader")
        ]
    try:
        world.insert(100)
        world.assert_once_each()
    finally:
        for process in processes:
            process.terminate()
        assert [process.wait(60) for process in processes] == [0, 0]


@pytest.fixture
def demo(installed: Installed, app: Path) -> Iterator[Path]:
    """Run the demo, with all of its processes, and leave it running for the test; return its data directory."""
    folder = app / ".outhaul" / "demo"
    try:
        run(installed.outhaul, "demo", "--keep", "--rows", "2000", cwd=app, env=here(app, {}))
        yield folder
    finally:
        run(installed.outhaul, "local", "down", "--data-dir", str(folder), cwd=app, env=here(app, {}))
        assert not [one for one in Stack(folder).status().values() if one.running]


@pytest.mark.thorough
@pytest.mark.slow
def test_the_embedded_servers_the_demo_and_flower_run(demo: Path) -> None:
    # The demo ends with code 0 only after it has counted every event in ClickHouse.
    stack = Stack(demo)
    until(lambda: stack.status()["flower"].version, what="Flower shows pages")
    assert all(one.running for one in stack.status().values())


@pytest.mark.thorough
def test_an_app_of_django_migrates_and_finds_no_change(
    installed: Installed, app: Path, make_world: Callable[..., World]
) -> None:
    world = make_world(setup=False)
    # Its directory is the first place where Python looks, so no name of a library may be there.
    shutil.copytree(ROOT / "deploy" / "examples" / "webapp", app.with_name("path"), dirs_exist_ok=True)
    folder = app.with_name("path")

    def manage(*arguments: str, code: int = 0) -> str:
        return run(installed.python, "manage.py", *arguments, code=code, cwd=folder, env=here(app, world.env))

    said = manage("migrate")
    assert "Applying outhaul.0001_outbox... OK" in said
    assert world.sql("SELECT to_regclass('mine')") is None
    assert world.sql("SELECT to_regclass('outbox')") is not None
    assert "No changes" in manage("makemigrations", "--check", "--dry-run")
    assert "no reader runs" in manage("outhaul_status", code=1)
