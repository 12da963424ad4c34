"""Pages of docs/reference/ that the code generates are those that it generates now."""

from __future__ import annotations

import pytest

from outhaul.deploy.reference.__main__ import FOLDER, pages
from outhaul.deploy.reference.cli import commands
from outhaul.sink.errors import Exit
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


@pytest.mark.parametrize("code", Exit)
def test_an_exit_code_has_a_meaning_and_an_action(code: Exit) -> None:
    for text in (code.meaning, code.action):
        assert text.endswith("."), code.name
    if code >= Exit.POSTGRES_UNREACHABLE:
        assert code.pages, f"{code.name}: name the runbook that helps"


def test_every_command_of_the_package_has_a_section_and_those_of_a_checkout_have_none() -> None:
    sections = {
        line.strip("# ").removeprefix("outhaul ") for line in PAGES["cli.md"].splitlines() if line.startswith("##")
    }
    assert sections == {" ".join(one.words) for one in commands() if one.words and one.is_shipped}
    assert {"reader", "slot reset", "local up", "assets export"} <= sections
    assert not {"bench", "chaos"} & sections
