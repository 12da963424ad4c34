"""Postgres' role and what it may do -> findings: enough for the reader, and not more.

Pure.

Source: https://www.postgresql.org/docs/current/logical-replication-security.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.cdc_reader.operate.doctor.finding import Finding, fail, fine, tried, warn
from outhaul.cdc_reader.postgres.preflight import check_role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.sink.errors import PipelineError
    from outhaul.sink.settings import Outbox

_APP = "rights of apps"


@dataclass(frozen=True, slots=True)
class Role:
    """Who we are; `may_select` is None where there is no outbox."""

    name: str
    superuser: bool
    replication: bool
    sees_sessions: bool
    may_select: bool | None


@dataclass(frozen=True, slots=True)
class AppRights:
    """What the group role for apps may do with one outbox; None of what the outbox does not have."""

    schema: bool
    insert: bool
    key: bool | None
    sequence: bool | None
    sequence_name: str | None


def judge(role: Role, outbox: Outbox, refused: PipelineError | None) -> Iterator[Finding]:
    """Judge attributes and grants; `refused` is what became of a replication connection, None where it opened."""
    yield tried(
        "REPLICATION",
        f"role {role.name} has it",
        lambda: check_role(role.name, may_replicate=role.replication or role.superuser),
    )
    yield connection(refused)
    if role.may_select is not None:
        yield select(role, outbox.sql_table)
    yield superuser(role)
    yield sessions(role)


def connection(refused: PipelineError | None) -> Finding:
    """Judge a replication connection that was tried."""
    if refused is None:
        return fine("replication connection", "opens")
    return fail(
        "replication connection",
        refused.message,
        "Let pg_hba.conf admit this role to its database, then SELECT pg_reload_conf(); see max_wal_senders, too",
    )


def select(role: Role, table: str) -> Finding:
    """Judge the right to read the outbox; the stream does not ask for it."""
    if role.may_select:
        return fine("SELECT", f"on {table}")
    return warn(
        "SELECT",
        f"role {role.name!r} may not read {table}: it streams without, but cannot backfill or compare",
        f'GRANT outhaul_reader TO "{role.name}";  -- or: GRANT SELECT ON {table} TO "{role.name}";',
    )


def sessions(role: Role) -> Finding:
    """Tell whether a second reader with this role could see that the first is silent; it is no need of a single one."""
    if role.sees_sessions:
        return fine("other sessions", "seen, so that a second reader could take over from a frozen one")
    return fine("other sessions", f"not seen; for a second reader: GRANT pg_read_all_stats TO {role.name}")


def app(rights: AppRights, table: str) -> Finding:
    """Judge what members of outhaul_app can do: each of these is a refused INSERT, or a refused key, in an app."""
    schema = table.partition(".")[0]
    lacking = [
        (what, f"GRANT {what} TO outhaul_app;")
        for held, what in (
            (rights.schema, f"USAGE ON SCHEMA {schema}"),
            (rights.insert, f"INSERT ON {table}"),
            (rights.key, f"SELECT (event_key) ON {table}"),
            (rights.sequence, f"USAGE ON SEQUENCE {rights.sequence_name}"),
        )
        if held is False
    ]
    if not lacking:
        return fine(_APP, f"outhaul_app may write to {table}")
    named = ", ".join(what for what, _ in lacking)
    todo = " ".join(statement for _, statement in lacking)
    return warn(_APP, f"role 'outhaul_app' lacks {named}: its members cannot write events", todo)


def superuser(role: Role) -> Finding:
    """Judge whether the role may do more than it needs."""
    if not role.superuser:
        return fine("least privilege", f"{role.name} is no superuser")
    return warn(
        "least privilege",
        f"role {role.name!r} is a superuser, which the reader does not need",
        "CREATE ROLE outhaul_login LOGIN REPLICATION PASSWORD '...'; GRANT outhaul_reader TO outhaul_login;",
    )
