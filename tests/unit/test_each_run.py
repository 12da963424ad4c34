"""docs/testing.md says what each run starts and kills -> the run has these tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "testing.md").read_text()


def named() -> set[str]:
    """Return the tests of the tables, with the ids of their parameters."""
    return set(re.findall(r"^\|.*\| `(test_.*)` \|$", PAGE, re.MULTILINE))


@pytest.mark.thorough
def test_make_test_chooses_the_tests_that_the_page_names() -> None:
    wanted = named()
    assert len(wanted) > 15
    names = {name.partition("[")[0] for name in wanted}
    files = [
        str(path)
        for path in ROOT.glob("tests/**/test_*.py")
        if names.intersection(re.findall(r"def (test_\w+)\(", path.read_text()))
    ]
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:randomly", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    chosen = {line.partition("::")[2] for line in done.stdout.splitlines()}
    assert wanted <= chosen, wanted - chosen
