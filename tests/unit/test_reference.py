"""Pages of docs/reference/ that the code generates are those that it generates now."""

from __future__ import annotations

import pytest

from outhaul.deploy.reference.__main__ import FOLDER, pages
from outhaul.sink.settings import Settings

PAGES = pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_generates(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == PAGES[name], "run: python -m outhaul.deploy.reference"


def test_every_setting_has_one_row_and_one_sentence() -> None:
    rows = [line for line in PAGES["settings.md"].splitlines() if line.startswith("| `OUTHAUL_")]
    assert len(rows) == len(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
        assert ". " not in field.description, name
