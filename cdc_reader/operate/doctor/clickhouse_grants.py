"""Privileges of the ClickHouse user -> findings: whether they are enough for reader and workers.

Pure.

Source: https://clickhouse.com/docs/sql-reference/statements/grant
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.cdc_reader.operate.doctor.finding import Finding, fail, fine, warn
from outhaul.sink.quoting import clickhouse_identifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_PROCESSES = ("SELECT", "system.processes")
"""The one privilege on a table that is not of the pipeline's database."""
_ADD_COLUMN = "ALTER ADD COLUMN"

Right = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Rights:
    """The user, and by (privilege, table) whether the user has it; None if the server cannot tell."""

    user: str
    database: str
    readonly: bool
    held: Mapping[Right, bool | None]


def wanted(names: Sequence[str], events: Sequence[str]) -> tuple[Right, ...]:
    """Return all privileges that reader and workers use; `events` are those of the tables `names` that have events."""
    on_tables = [(privilege, name) for name in names for privilege in ("INSERT", "SELECT")]
    return (*on_tables, _PROCESSES, *((_ADD_COLUMN, name) for name in events))


def judge(rights: Rights) -> Iterator[Finding]:
    """Judge all privileges."""
    if rights.readonly:
        todo = f"ALTER USER {clickhouse_identifier(rights.user)} SETTINGS readonly = 0"
        yield fail("read-only", f"user {rights.user!r} can only read: its profile sets readonly", todo)
    own = [right for right in rights.held if right[0] in {"INSERT", "SELECT"} and right != _PROCESSES]
    yield _judge("read and write", own, rights, fail, "no batch can be stored without it")
    yield _judge("running inserts", [_PROCESSES], rights, warn, "a reader that takes over waits a minute without it")
    added = [right for right in rights.held if right[0] == _ADD_COLUMN]
    yield _judge("add columns", added, rights, warn, "a new column of the outbox would stop the worker")


def _judge(
    check: str, asked: Sequence[Right], rights: Rights, otherwise: Callable[[str, str, str], Finding], why: str
) -> Finding:
    missing = [right for right in asked if rights.held[right] is False]
    if missing:
        named = ", ".join(f"{privilege} on {name}" for privilege, name in missing)
        user = clickhouse_identifier(rights.user)
        todo = " ".join(f"GRANT {right[0]} ON {object_of(right, rights.database)} TO {user};" for right in missing)
        return otherwise(check, f"user {rights.user!r} lacks {named}: {why}", todo)
    if any(rights.held[right] is None for right in asked):
        return warn(
            check,
            "not checked: this server is too old for CHECK GRANT",
            f"SHOW GRANTS FOR {clickhouse_identifier(rights.user)}",
        )
    privileges = " and ".join(dict.fromkeys(privilege for privilege, _ in asked))
    names = ", ".join(dict.fromkeys(name for _, name in asked))
    return fine(check, f"{privileges} on {names if len(asked) == 1 else 'all tables'}")


def object_of(right: Right, database: str = "") -> str:
    """Return the table of a privilege for a statement, with this name of its database."""
    parts = right[1].split(".") if right == _PROCESSES else (database, right[1])
    return ".".join(clickhouse_identifier(part) for part in parts if part)
