"""MkDocs' files in docs/ -> these and every other file of the repository that a page links to, with working links.

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
# Pages in the root of the repository.
_ROOT_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")

_path_of: dict[str, str] = {}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/: three in the root, and every file and folder that a page links to."""
    _path_of.clear()
    waiting = [*_ROOT_PAGES, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    while waiting:
        path = waiting.pop()
        place = pages.site_path(path, is_folder=_is_folder(path))
        if place in _path_of or path.startswith("..") or not (ROOT / path).exists():
            continue  # MkDocs itself reports broken links
        path = f"{path}/README.md" if _has_page(path) else path
        if path.startswith("docs/") and not path.endswith(".md"):
            continue
        _path_of[place] = path
        text = _text(path)
        if not path.startswith("docs/"):
            files.append(File.generated(config, place, content=text))
        waiting += pages.link_targets(text, _base_path(path))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Replace the links of a page by links to the pages of the site."""
    return pages.site_page(markdown, _base_path(_path_of[page.file.src_uri]), _is_folder)


def _base_path(path: str) -> str:
    """Return the path from which a page's relative links start; for a folder, that of a README in it."""
    return f"{path}/README.md" if _is_folder(path) else path


def _is_folder(path: str) -> bool:
    return (ROOT / path).is_dir()


def _has_page(path: str) -> bool:
    return (ROOT / path / "README.md").exists()


def _text(path: str) -> str:
    file = ROOT / path
    if file.is_dir():
        return pages.folder_page(path, (one.name for one in file.iterdir() if one.is_file()))
    text = file.read_text()
    return text if path.endswith(".md") else pages.file_page(path, text)
