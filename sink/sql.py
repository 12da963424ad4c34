"""Name of a .sql file and values -> statement text; the files are in the folder `sql/`.

Edge: reads files of this package, and only files that the code names. It never reads a folder `sql/` of an app.
`${name}` is replaced by text that is safe there: names are quoted, and types come from a fixed table.
`{name:Type}` stays in the text, and ClickHouse binds it.

Source: https://docs.python.org/3/library/string.html#template-strings-strings
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from string import Template

from outhaul.sink.quoting import clickhouse_identifier

# The file that is applied last; it records the number of the newest file.
MARK = "schema_number.sql"

_SQL = Path(__file__).parents[1] / "sql"
# `outhaul setup` applies these in this order. It has the rights of an owner, so it applies no other file of a folder.
_FILES = {
    "postgres": (
        "0001_outbox.sql",
        "0002_publication.sql",
        "0003_slot.sql",
        "0004_roles.sql",
        "0005_emit.sql",
        "9999_schema_number.sql",
    ),
    "clickhouse": (
        "0001_event_log.sql",
        "0002_event_log_dead_letters.sql",
        "0003_event_log_epochs.sql",
        "0004_event_log_dead_letters_discarded.sql",
        "0005_event_log_pauses.sql",
        "0006_event_log_batch.sql",
        "0007_event_log_owners.sql",
        "0008_event_log_epochs_in_memory.sql",
        "0009_event_log_view_gaps.sql",
        "0010_event_log_trial.sql",
        "0011_event_log_trial_copies.sql",
        "0012_event_log_trial_view.sql",
        "0013_event_log_ingested_index.sql",
        "9999_event_log_schema_number.sql",
    ),
    "clickhouse/cluster": ("0001_event_log_all.sql",),
}

_NUMBER = re.compile(r"outhaul schema (\d{1,9})")
# Values of a query that are names of tables.
_TABLES = frozenset(
    {"table", "dead_letters", "epochs", "known", "owners", "pauses", "view_gaps", "trial", "trial_copies"}
)
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)


class TableExpression(str):
    """What a statement reads from, if this is not the name of a table: it stays as it is."""

    __slots__ = ()


@cache
def _template(path: str) -> str:
    return (_SQL / path).read_text(encoding="utf-8")


def names(folder: str) -> tuple[str, ...]:
    """List the .sql files of one folder (`postgres`, `clickhouse`) in the order in which they are applied."""
    return tuple(f"{folder}/{name}" for name in _FILES[folder])


def schema_number(folder: str) -> int:
    """Return the number of the newest file of a folder: the schema number of this release."""
    numbers = [int(name.removeprefix(f"{folder}/")[:4]) for name in names(folder) if not name.endswith(MARK)]
    return max(numbers)


def number_in(comment: str | None) -> int:
    """Return the schema number in a comment that the folder's last file has written; 0 if the comment has none."""
    found = _NUMBER.fullmatch(comment or "")
    return int(found[1]) if found else 0


def statement(path: str, **values: object) -> str:
    """Return the text of one file with its values; comments stay.

    Raises:
        KeyError: the file needs a value that is not in `values`.
    """
    return Template(_template(path)).substitute(values)


def query(name: str, **values: object) -> str:
    """Return the text of `clickhouse/queries/<name>.sql` without comments, which is shorter to send.

    Names of tables are quoted here; a `TableExpression` and other values must be safe in a statement.

    Raises:
        KeyError: the file names a value that was not given.
    """
    text = _COMMENT.sub("", _template(f"clickhouse/queries/{name}.sql"))
    names_of_tables = (key for key in _TABLES & values.keys() if not isinstance(values[key], TableExpression))
    quoted = {key: clickhouse_identifier(str(values[key])) for key in names_of_tables}
    return Template(text).substitute(values | quoted).strip()
