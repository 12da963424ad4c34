"""A program of Prometheus -> where it is on this machine.

Edge: looks at the path. Where one is missing, a laptop skips the test, and CI, which installs them, fails it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[1] / "deploy" / "prometheus"
RULES = FOLDER / "outhaul.rules.yml"

# Debian's names first; elsewhere Alertmanager has no prefix.
_NAMES = {
    "promtool": ("promtool",),
    "amtool": ("amtool",),
    "prometheus": ("prometheus",),
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),
}
_HOW = "apt-get install --no-install-recommends prometheus prometheus-alertmanager"


def program(name: str) -> str:
    """Return the path of promtool, amtool, prometheus or alertmanager; skip the test where there is none."""
    for candidate in _NAMES[name]:
        if path := shutil.which(candidate):
            return path
    reason = f"{name} is not installed: {_HOW}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def alerts() -> dict[str, dict[str, object]]:
    """Return all alerts of the rule file by their names."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}
