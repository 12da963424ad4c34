"""What the docs name exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/**/*.md")])


@cache
def names_of_tests() -> set[str]:
    return {
        node.name
        for path in ROOT.glob("tests/**/test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    } | {path.stem for path in ROOT.glob("tests/**/test_*.py")}


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_that_a_page_names_exists(doc: Path) -> None:
    assert set(re.findall(r"\btest_\w+", doc.read_text())) <= names_of_tests()


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_page_names_or_links_exists(doc: Path) -> None:
    text = doc.read_text()
    top = r"(?:producer|cdc_reader|sink|sql|deploy|tests|docs)"
    for named in re.findall(rf"`({top}/[\w./*-]*)`", text):
        assert list(ROOT.glob(named.rstrip("/"))), named
    for named in re.findall(rf"(?<![\w/.-]){top}/[\w/-]+\.(?:py|sql)\b", text):
        assert (ROOT / named).exists(), named
    for link in re.findall(r"\]\((?!\w+:)([^)#\s]+)", text):
        assert (doc.parent / link).exists(), link


def test_the_index_of_decisions_has_each_with_its_title() -> None:
    folder = ROOT / "docs" / "adr"
    titles = [path.read_text().partition("\n")[0].removeprefix("# ") for path in sorted(folder.glob("0*.md"))]
    listed = re.findall(r"^(\d+\. )\[(.*)\]\((.*)\)$", (folder / "README.md").read_text(), re.MULTILINE)
    assert [number + title for number, title, _ in listed] == titles
