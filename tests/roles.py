"""Logins with no more rights than the docs say: the groups of sql/postgres/0004_roles.sql, and REPLICATION."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.conninfo import make_conninfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

_DSNS = {"OUTHAUL_POSTGRES_DSN", "OUTHAUL_STREAM_DSN"}

READER, APP, AUDITOR = "tested_reader", "tested_app", "tested_auditor"

# The groups come with the first setup, and these may be wanted before it; members they are either way.
_CREATE = f"""
    DO $do$
    DECLARE name text;
    BEGIN
        FOREACH name IN ARRAY ARRAY['outhaul_reader', 'outhaul_app', 'outhaul_auditor'] LOOP
            IF to_regrole(name) IS NULL THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', name);
            END IF;
        END LOOP;
        IF to_regrole('{READER}') IS NULL THEN
            CREATE ROLE {READER} LOGIN REPLICATION IN ROLE outhaul_reader;
            CREATE ROLE {APP} LOGIN IN ROLE outhaul_app;
            CREATE ROLE {AUDITOR} LOGIN IN ROLE outhaul_auditor;
        END IF;
    END $do$"""


def create(admin: psycopg.Connection[Any]) -> None:
    """Create the logins, where they are missing."""
    admin.execute(_CREATE.encode())


def as_reader(dsn: str) -> str:
    """Return the DSN for the reader's login."""
    return make_conninfo(dsn, user=READER)


def as_app(dsn: str) -> str:
    """Return the DSN for the app's login."""
    return make_conninfo(dsn, user=APP)


def as_auditor(dsn: str) -> str:
    """Return the DSN for the exporter's login."""
    return make_conninfo(dsn, user=AUDITOR)


def for_processes(env: Mapping[str, str]) -> dict[str, str]:
    """Return settings with which reader, worker and exporter have the reader's rights alone."""
    of_postgres = {name: as_reader(dsn) for name, dsn in env.items() if name in _DSNS}
    return {**env, **of_postgres}
