"""`python -m outhaul.deploy.grafana` -> the dashboards' JSON files beside this one.

Edge: files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from outhaul.deploy.grafana.depth_dashboard import depth
from outhaul.deploy.grafana.overview_dashboard import overview

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard

HERE = Path(__file__).parent


def dashboards() -> dict[str, str]:
    """Return the text of each file, by its name."""
    return {f"{made.uid}.json": _text(made) for made in (overview(), depth())}


def write(folder: Path) -> None:
    """Write each file."""
    for name, text in dashboards().items():
        (folder / name).write_text(text)
        sys.stdout.write(f"{folder / name}\n")


def _text(made: Dashboard) -> str:
    return JSONEncoder(indent=2, ensure_ascii=False).encode(made) + "\n"


if __name__ == "__main__":
    write(HERE)
