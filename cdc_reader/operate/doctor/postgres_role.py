"""The Postgres role and its privileges -> findings: whether they are enough for the reader, and not more.

Pure.

Source: https://www.postgresql.org/docs/current/logical-replication-security.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.cdc_reader.operate.doctor.finding import Finding, broken, fine, warn
from outhaul.sink.quoting import postgres_identifier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.sink.errors import PipelineError
    from outhaul.sink.settings import Outbox

_APP = "rights of apps"


@dataclass(frozen=True, slots=True)
class Role:
    """The role of the DSN; `may_select` is None if the outbox does not exist."""

    name: str
    superuser: bool
    sees_sessions: bool
    may_select: bool | None


@dataclass(frozen=True, slots=True)
class AppRights:
    """Privileges of the apps' group role on one outbox; None if the outbox has no such column or sequence."""

    schema: bool
    insert: bool
    key: bool | None
    sequence: bool | None
    sequence_name: str | None


def judge(role: Role, outbox: Outbox, refused: PipelineError | None) -> Iterator[Finding]:
    """Judge the role and its grants; `refused` is the error of a replication connection, None if it opened."""
    yield connection(role, refused)
    if role.may_select is not None:
        yield select(role, outbox.sql_table)
    yield superuser(role)
    yield sessions(role)


def connection(role: Role, refused: PipelineError | None) -> Finding:
    """Judge an attempt to open a replication connection."""
    if refused is None:
        return fine("replication connection", f"opens for role {role.name}")
    return broken("replication connection", refused)


def select(role: Role, table: str) -> Finding:
    """Judge the privilege to read the outbox; the stream does not need it."""
    if role.may_select:
        return fine("SELECT", f"on {table}")
    name = postgres_identifier(role.name)
    return warn(
        "SELECT",
        f"role {role.name!r} cannot read {table}: the reader streams, but backfill and verify fail",
        f"GRANT outhaul_reader TO {name};  -- or: GRANT SELECT ON {table} TO {name};",
    )


def sessions(role: Role) -> Finding:
    """Report whether a standby reader with this role could see that the active one is silent; not a requirement."""
    if role.sees_sessions:
        return fine("other sessions", "visible, so a standby reader can take over from a frozen one")
    return fine(
        "other sessions",
        f"not visible; for a standby reader: GRANT pg_read_all_stats TO {postgres_identifier(role.name)}",
    )


def app(rights: AppRights, outbox: Outbox) -> Finding:
    """Judge the privileges of outhaul_app; without one of them, an app's INSERT fails, or its INSERT with a key."""
    table = outbox.sql_table
    lacking = [
        (what, f"GRANT {what} TO outhaul_app;")
        for held, what in (
            (rights.schema, f"USAGE ON SCHEMA {outbox.sql_schema}"),
            (rights.insert, f"INSERT ON {table}"),
            (rights.key, f"SELECT (event_key) ON {table}"),
            (rights.sequence, f"USAGE ON SEQUENCE {rights.sequence_name}"),
        )
        if held is False
    ]
    if not lacking:
        return fine(_APP, f"outhaul_app can write to {table}")
    named = ", ".join(what for what, _ in lacking)
    todo = " ".join(statement for _, statement in lacking)
    return warn(_APP, f"role 'outhaul_app' lacks {named}: its members cannot write events", todo)


def superuser(role: Role) -> Finding:
    """Judge whether the role has more privileges than it needs."""
    if not role.superuser:
        return fine("least privilege", f"{role.name} is not a superuser")
    return warn(
        "least privilege",
        f"role {role.name!r} is a superuser, which the reader does not need",
        "CREATE ROLE outhaul_login LOGIN REPLICATION PASSWORD '...'; GRANT outhaul_reader TO outhaul_login;",
    )
