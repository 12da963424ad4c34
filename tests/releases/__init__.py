"""Processes of the release before and of the next one: this one's, whose messages are of another version.

A folder of these on PYTHONPATH has a `sitecustomize`, which Python imports at its start, so nothing of it is in the
product.
"""

from __future__ import annotations

import os
from pathlib import Path

_HERE = Path(__file__).parent


def before() -> dict[str, str]:
    """Return the environment of a process of the release before."""
    return _environment("before")


def after() -> dict[str, str]:
    """Return the environment of a process of the next release."""
    return _environment("after")


def _environment(name: str) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(_HERE / name), *filter(None, [os.environ.get("PYTHONPATH")])])}
