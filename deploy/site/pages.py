"""Markdown for GitHub, and its path in the repository -> Markdown for MkDocs, with links that work on the site.

Pure. The links in the docs are paths in the repository. On the site, `docs` is the root, the README is the first page,
and each file of the repository that a page links to has a page of its own.

Source: https://www.mkdocs.org/user-guide/writing-your-docs/#linking-to-pages
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"\s*(```|~~~)")
_ITEM = re.compile(r"(?:[-*+]|\d+\.) ")
_LANGUAGES = {".yml": "yaml", ".yaml": "yaml", ".sql": "sql", ".py": "python", ".json": "json", ".toml": "toml"}


def link_targets(markdown: str, path: str) -> Iterator[str]:
    """Yield the targets of a page's links, as paths in the repository; `path` is that of the page."""
    for line, is_code in _lines(markdown):
        if not is_code:
            for link in _LINK.finditer(line):
                yield _resolve(path, link[1])


def site_path(path: str, *, is_folder: bool = False) -> str:
    """Return the path on the site of a file or folder of the repository."""
    if path == "README.md":
        return "index.md"
    if is_folder:
        return site_path(f"{path}/README.md")
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return path if path.endswith(".md") else f"{path}.md"


def site_page(markdown: str, path: str, is_folder: Callable[[str], bool]) -> str:
    """Return a page for the site: its links lead to the site's pages, and an empty line precedes each list."""
    here = posixpath.dirname(site_path(path))

    def lead(link: re.Match[str]) -> str:
        target = _resolve(path, link[1])
        there = site_path(target, is_folder=is_folder(target))
        return f"]({posixpath.relpath(there, here or '.')}{link[2] or ''})"

    made: list[str] = []
    for line, is_code in _lines(markdown):
        is_item = not is_code and _ITEM.match(line)
        if is_item and made and made[-1] and not _ITEM.match(made[-1]) and not made[-1].startswith(" "):
            made.append("")
        made.append(line if is_code else _LINK.sub(lead, line))
    return "\n".join(made) + "\n"


def file_page(path: str, text: str) -> str:
    """Return a page that shows a file which is not Markdown."""
    language = _LANGUAGES.get(posixpath.splitext(path)[1], "text")
    return f"# {path}\n\n````{language}\n{text.rstrip()}\n````\n"


def folder_page(path: str, names: Iterable[str]) -> str:
    """Return a page that lists the files of a folder without a README."""
    base = posixpath.basename(path)
    return f"# {path}\n\n" + "".join(f"- [{name}](../{base}/{name})\n" for name in sorted(names))


def _resolve(path: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def _lines(markdown: str) -> Iterator[tuple[str, bool]]:
    """Yield each line, and whether it is code."""
    is_code = False
    for line in markdown.splitlines():
        is_fence = bool(_FENCE.match(line))
        yield line, is_code or is_fence
        is_code ^= is_fence
