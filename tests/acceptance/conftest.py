"""The package, built and installed once for all tests that ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import package

if TYPE_CHECKING:
    from tests.package import Built, Installed


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return package.build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install the wheel where the requirements of all extras are."""
    made = package.install(built.wheel, tmp_path_factory.mktemp("installed") / "venv")
    made.lend()
    return made
