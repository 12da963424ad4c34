"""The README's first command, from the checkout and from a clean installation far away from it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch import OUTHAUL

KEYS = {"committed", "rolled_back", "stored", "missing", "duplicated", "rows_per_s", "p50_ms", "p99_ms"}
CHECKOUT = Path(__file__).parents[2]


def demo(outhaul: str, folder: Path, rows: int) -> dict[str, float]:
    done = subprocess.run(
        [outhaul, "demo", "--json", "--rows", str(rows)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == KEYS
    assert (found["committed"], found["stored"], found["missing"], found["duplicated"]) == (rows, rows, 0, 0)
    assert found["rolled_back"] > 0
    return found


def left_running(folder: Path) -> list[str]:
    commands = (path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK))
    return [command.decode(errors="replace") for command in commands if str(folder).encode() in command]


@pytest.mark.slow
def test_the_demo_counts_every_event_and_leaves_nothing_running(tmp_path: Path) -> None:
    demo(OUTHAUL, tmp_path, 30_000)
    assert left_running(tmp_path) == []


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_clean_installation_outside_the_checkout_runs_the_demo(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".venv", ".git", ".outhaul", ".*_cache", "tests")
    shutil.copytree(CHECKOUT, source, symlinks=True, ignore=ignored)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    pip = [str(tmp_path / "venv/bin/python"), "-m", "pip", "install", "--quiet", f"{source}[local]"]
    subprocess.run(pip, check=True, timeout=300)
    shutil.rmtree(source)
    demo(str(tmp_path / "venv/bin/outhaul"), tmp_path, 2_000)
