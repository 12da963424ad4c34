"""The extras of the package, and the command that names the one that is missing."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from outhaul.__main__ import EXTRAS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def distributions(extra: str) -> set[str]:
    """Name what an extra requires by itself, as PyPI spells it."""
    found = (re.split(r"[\[<>=]", one)[0] for one in PROJECT["optional-dependencies"][extra])
    return {name.lower().replace("_", "-") for name in found} - {"outhaul"}


def test_the_producer_requires_nothing() -> None:
    assert PROJECT["dependencies"] == []


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_command_knows_every_package_of_an_extra(extra: str) -> None:
    owners = packages_distributions()
    known = {owner.lower().replace("_", "-") for name in EXTRAS[extra] for owner in owners[name]}
    assert known == distributions(extra)


@pytest.mark.parametrize("extra", ["pipeline", "flower", "sqlalchemy", "django"])
def test_the_lock_has_a_version_of_every_package_that_runs_in_production(extra: str) -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert distributions(extra) <= locked


@pytest.mark.parametrize("extra", ["local", "flower"])
def test_an_extra_for_more_commands_brings_the_pipeline(extra: str) -> None:
    assert "outhaul[pipeline]" in PROJECT["optional-dependencies"][extra]
