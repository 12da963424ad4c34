"""`python -m outhaul.deploy.reference` -> the generated pages in docs/reference/.

Edge: files.
"""

from __future__ import annotations

import sys
from pathlib import Path

from outhaul.deploy.reference import cli, clickhouse_settings, exit_codes, settings

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"


def pages() -> dict[str, str]:
    """Return the text of each page, by the name of its file."""
    return {
        "settings.md": settings.page(),
        "cli.md": cli.page(),
        "exit-codes.md": exit_codes.page(),
        "clickhouse-settings.md": clickhouse_settings.page(),
    }


def write(folder: Path) -> None:
    """Write each page."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{folder / name}\n")


if __name__ == "__main__":
    write(FOLDER)
