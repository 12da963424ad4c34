"""Fail points are off unless a folder is named at the start; each acts once, in the process that reaches it first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from outhaul.sink import failpoint
from outhaul.sink.errors import TransientError


def test_a_process_that_was_given_no_folder_has_none() -> None:
    assert failpoint.reach is failpoint._off


def test_an_action_counts_its_turns_and_acts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoint, "_FOLDER", str(tmp_path))
    (tmp_path / "here").write_text("raise@3")
    failpoint._on("elsewhere")
    failpoint._on("here")
    failpoint._on("here")
    with pytest.raises(TransientError, match="here"):
        failpoint._on("here")
    failpoint._on("here")
    assert (tmp_path / "here.fired").read_text() == str(os.getpid())


def test_of_several_processes_one_is_killed(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("kill")
    code = "from outhaul.sink.failpoint import reach; [reach('here') for _ in range(1000)]"
    env = os.environ | {"OUTHAUL_FAILPOINTS": str(tmp_path)}
    processes = [subprocess.Popen([sys.executable, "-c", code], env=env) for _ in range(4)]
    assert sorted(process.wait(30) for process in processes) == [-9, 0, 0, 0]
