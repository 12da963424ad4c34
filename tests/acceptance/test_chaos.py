"""Two minutes of load and random faults; `make chaos` goes on for longer."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.launch import OUTHAUL

KEYS = {"faults", "committed", "stored", "missing", "duplicated", "slot_overruns", "longest_stall_s", "views"}


@pytest.mark.long
@pytest.mark.timeout(500)
def test_two_minutes_of_chaos_lose_and_repeat_nothing(tmp_path: Path) -> None:
    command = [OUTHAUL, "chaos", "--for", "2m", "--rows-per-s", "300", "--json", "--data-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=480)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) >= KEYS
    assert found["faults"] >= 10
    assert found["committed"] == found["stored"] > 10_000
    assert (found["missing"], found["duplicated"], found["slot_overruns"]) == (0, 0, 0)
    views = {view["view"]: (view["missing"], view["twice"]) for view in found["views"]}
    assert views == {"rows": (0, 0), "sums": (0, 0), "thirds": (0, 0)}
    assert found["views"][0]["events"] == found["committed"]
