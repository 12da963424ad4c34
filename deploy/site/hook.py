"""MkDocs' files and pages -> those of the whole repository that the docs are made of and link to.

Edge: reads files; MkDocs calls it (`hooks` in mkdocs.yml).

Source: https://www.mkdocs.org/dev-guide/plugins/#events
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

from outhaul.deploy.site import pages

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
# Pages that stand beside docs/.
_BESIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")

_path_of: dict[str, str] = {}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/: three beside it, and whatever any page links to."""
    _path_of.clear()
    waiting = [*_BESIDE, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    while waiting:
        path = waiting.pop()
        place = pages.place(path, is_folder=_is_folder(path))
        if place in _path_of or path.startswith("..") or not (ROOT / path).exists():
            continue  # a link that leads nowhere is named by MkDocs itself
        path = f"{path}/README.md" if _has_page(path) else path
        if path.startswith("docs/") and not path.endswith(".md"):
            continue
        _path_of[place] = path
        text = _text(path)
        if not path.startswith("docs/"):
            files.append(File.generated(config, place, content=text))
        waiting += pages.targets(text, _page(path))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Let the links of a page lead to where things stand on the site."""
    return pages.moved(markdown, _page(_path_of[page.file.src_uri]), _is_folder)


def _page(path: str) -> str:
    """Return where a page's links start from: a folder's are those of a page in it."""
    return f"{path}/README.md" if _is_folder(path) else path


def _is_folder(path: str) -> bool:
    return (ROOT / path).is_dir()


def _has_page(path: str) -> bool:
    return (ROOT / path / "README.md").exists()


def _text(path: str) -> str:
    file = ROOT / path
    if file.is_dir():
        return pages.listed(path, (one.name for one in file.iterdir() if one.is_file()))
    text = file.read_text()
    return text if path.endswith(".md") else pages.shown(path, text)
