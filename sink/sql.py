"""Name of a .sql file and values -> statement text; the files are in the folder `sql/`.

Edge: reads package data, nothing else. `${name}` is replaced by text that is safe there (names are checked in the
settings, types come from a fixed table); `{name:Type}` is left for ClickHouse to bind.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from string import Template

# The file that comes last and notes how far the others have been applied.
MARK = "schema_number.sql"

_NUMBER = re.compile(r"outhaul schema (\d{1,9})")
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)


@cache
def _template(path: str) -> str:
    return files("outhaul").joinpath("sql", path).read_text(encoding="utf-8")


def names(folder: str) -> tuple[str, ...]:
    """List the .sql files of one folder (`postgres`, `clickhouse`) in the order in which they are applied."""
    entries = (entry.name for entry in files("outhaul").joinpath("sql", folder).iterdir())
    return tuple(f"{folder}/{name}" for name in sorted(entries) if name.endswith(".sql"))


def schema_number(folder: str) -> int:
    """Return the number of the newest file of a folder: how far this release brings a schema."""
    numbers = [int(name.removeprefix(f"{folder}/")[:4]) for name in names(folder) if not name.endswith(MARK)]
    return max(numbers)


def number_in(comment: str | None) -> int:
    """Read the number that the folder's last file has left in a comment; 0 where it has left none."""
    found = _NUMBER.fullmatch(comment or "")
    return int(found[1]) if found else 0


def statement(path: str, **values: object) -> str:
    """Fill in one file, comments kept.

    Raises:
        KeyError: the file names a value that was not given.
    """
    return Template(_template(path)).substitute(values)


def query(name: str, **values: object) -> str:
    """Fill in `clickhouse/queries/<name>.sql`, without its comments: shorter on the wire."""
    text = _COMMENT.sub("", _template(f"clickhouse/queries/{name}.sql"))
    return Template(text).substitute(values).strip()


def identifier(name: str) -> str:
    """Quote a ClickHouse identifier, whatever it holds."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(text: str) -> str:
    """Quote a ClickHouse string literal, whatever it holds."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
