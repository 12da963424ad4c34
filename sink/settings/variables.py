"""Names of environment variables -> which of them nobody reads, and the known name that each is nearest to.

Edge: the environment, for names only.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

PREFIX = "OUTHAUL_"
CONFIG = f"{PREFIX}CONFIG"
FILE_SUFFIX = "_FILE"
# Prefix of Flower's options: cdc_reader/cli/flower.py.
FLOWER = f"{PREFIX}FLOWER_"

# Read by others than the settings: sink/failpoint.py and the tests.
_OTHERS = {CONFIG, f"{PREFIX}FAILPOINTS"}
_OF_TESTS = f"{PREFIX}TEST_"
# Kubernetes sets these in every container, after the names of services; a service outhaul-metrics makes a variable that
# has the name of a setting, with an address as its value.
_OF_SERVICES = re.compile(r"\w+_(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)")
_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class Unknown:
    """A variable that nobody reads; `nearest` is the known name that is most like it, or empty."""

    name: str
    nearest: str

    def __str__(self) -> str:
        return f"{self.name} is not a setting and has no effect" + hint(self.nearest)


def hint(nearest: str) -> str:
    """Return the end of a sentence about a name that is not known."""
    return f"; did you mean {nearest}?" if nearest else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most like `name`; empty if no name is."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)), "")


def unknown(names: Iterable[str], fields: Collection[str], secrets: Collection[str]) -> tuple[Unknown, ...]:
    """Return those of the variables that begin with OUTHAUL_ and that nobody reads, in order.

    Args:
        names: of environment variables.
        fields: names of all settings.
        secrets: those of them that may be read from files.
    """
    variables = {variable(field) for field in fields}
    known = variables | {variable(field) + FILE_SUFFIX for field in secrets} | _OTHERS
    # Names of settings are read in any case.
    wrong = (name for name in sorted(set(names)) if name.upper().startswith(PREFIX) and name.upper() not in known)
    return tuple(Unknown(name, nearest(name.upper(), known)) for name in wrong if not _is_of_others(name.upper()))


def _is_of_others(name: str) -> bool:
    return name.startswith((_OF_TESTS, FLOWER)) or is_of_service(name)


def is_of_service(name: str, value: str | None = None) -> bool:
    """Tell whether Kubernetes has set a variable after a service; without a value, its name decides."""
    found = _OF_SERVICES.fullmatch(name.upper()) is not None
    return found and (value is None or _ADDRESS.match(value) is not None)


def variable(field: str) -> str:
    """Return the environment variable of a setting."""
    return f"{PREFIX}{field}".upper()


def config_path() -> str:
    """Return the path of the TOML file, which need not exist."""
    return os.environ.get(CONFIG, "outhaul.toml")
