"""`--help` fits on one screen and has an example; completion completes."""

from __future__ import annotations

import os
import subprocess

import pytest

from outhaul.deploy.reference.cli import commands
from tests.acceptance.commands import outhaul_here
from tests.launch import OUTHAUL

_SCREEN_LINES = 40


@pytest.mark.parametrize("words", [(), *(one.words for one in commands() if not one.is_group)], ids=" ".join)
def test_help_fits_a_screen_and_gives_an_example(words: tuple[str, ...]) -> None:
    code, said, _ = outhaul_here({"COLUMNS": "100", "NO_COLOR": "1"}, *words, "--help")
    assert code == 0
    assert len(said.splitlines()) <= _SCREEN_LINES
    if words:
        assert "Example:" in said
        assert f"outhaul {' '.join(words)}" in said.partition("Example:")[2]


@pytest.mark.thorough
def test_completion_completes_a_command() -> None:
    done = subprocess.run(
        [OUTHAUL],
        env={**os.environ, "_OUTHAUL_COMPLETE": "complete_bash", "COMP_WORDS": "outhaul slot re", "COMP_CWORD": "2"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.split() == ["reset"]
