"""No file of the checkout, and no help text, has a phrase of tests/unit/phrases.py."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from outhaul.deploy.reference.cli import Command, commands
from tests.unit.phrases import ROOT, files, found_in

if TYPE_CHECKING:
    from pathlib import Path


def by_top_folder() -> dict[str, list[Path]]:
    """Group the files of the checkout by their top folder; a file in the root is a group of its own."""
    grouped: dict[str, list[Path]] = defaultdict(list)
    for path in files():
        grouped[path.relative_to(ROOT).parts[0]].append(path)
    return grouped


GROUPS = by_top_folder()


@pytest.mark.parametrize("top", sorted(GROUPS))
def test_no_file_has_a_listed_phrase(top: str) -> None:
    assert [
        f"{path.relative_to(ROOT)}:{line}: {phrase!r}: {hint}"
        for path in GROUPS[top]
        for line, phrase, hint in found_in(path.read_text(encoding="utf-8"))
    ] == []


def test_every_part_of_the_repository_is_read() -> None:
    assert {"cdc_reader", "deploy", "docs", "producer", "sink", "sql", "tests", "README.md", "Makefile"} <= set(GROUPS)


@pytest.mark.parametrize("one", commands(), ids=lambda one: " ".join(one.words) or "outhaul")
def test_no_help_text_has_a_listed_phrase(one: Command) -> None:
    texts = [one.command.help, one.command.short_help, *(parameter.help for parameter in one.command.params)]
    assert [found for text in texts if text for found in found_in(text)] == []


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("There is none.", "There is none"),
        ("a wait that lasts for\n    # ever", "for\n    # ever"),
        ('"one line, so "\n    "many bytes"', 'so "\n    "many'),
    ],
)
def test_a_phrase_is_found_also_across_lines(text: str, phrase: str) -> None:
    assert [found for _, found, _ in found_in(text)] == [phrase]


@pytest.mark.parametrize("text", ["The default is None.", "There is no one.", "the tour sofa", "a heading"])
def test_plain_text_has_no_listed_phrase(text: str) -> None:
    assert found_in(text) == []
