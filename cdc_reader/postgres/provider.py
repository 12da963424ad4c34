"""Roles and settings that a server shows -> the provider that runs it, and what to type there.

Edge: one or two queries. A provider's servers refuse ALTER SYSTEM, and have other ways to give the right to replicate.
This table decides nothing but hints: whether a replication connection opens is tried (cdc_reader/postgres/connect.py).

Source: each provider's page in docs/managed/ names its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from outhaul.cdc_reader.postgres.pooler import PoolerError
from outhaul.sink.errors import Exit
from outhaul.sink.quoting import postgres_identifier

if TYPE_CHECKING:
    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.errors import FatalError

_ROLES: LiteralString = "SELECT rolname::text AS name FROM pg_roles WHERE rolname = ANY(%s)"
# Only if no role is known: a provider may forbid some roles to read a setting, which raises an error.
_SETTINGS: LiteralString = "SELECT name FROM unnest(%s::text[]) AS name WHERE current_setting(name, true) IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Provider:
    """What a provider's servers show, and its hints; for a server without a provider, `name` is empty."""

    name: str = ""
    page: str = ""
    role: str = ""
    setting: str = ""
    # How to set wal_level and any other setting ({0} is `name = value`), and how to let a role ({0}) replicate.
    wal_level: str = "ALTER SYSTEM SET wal_level = 'logical', then restart Postgres"
    any_setting: str = ""
    replication: str = "ALTER ROLE {0} REPLICATION"
    # Why a replication connection may fail although the login is right.
    connection: str = (
        "An ordinary connection with this login opens. Allow one for replication in pg_hba.conf, for this role and "
        "database, then SELECT pg_reload_conf()"
    )
    # Settings that nobody can change there.
    fixed: tuple[str, ...] = ()
    # How long a slot without a reader lives, if the provider drops it; empty if it does not.
    drops_slots: str = ""

    def grant(self, role: str) -> str:
        """Return how to give a role the right to replicate."""
        return self._with_page(self.replication.format(postgres_identifier(role)))

    def make_logical(self) -> str:
        """Return how to set `wal_level = logical`."""
        return self._with_page(self.wal_level)

    def change(self, setting: str, value: str, *, restart: bool = False) -> str:
        """Return how to change a setting of the server."""
        if not self.name:
            literal = value if value.isdigit() or value == "on" else f"'{value}'"
            then = ", then restart Postgres" if restart else "; SELECT pg_reload_conf();"
            return f"ALTER SYSTEM SET {setting} = {literal}{then}"
        return self.any_setting.format(f"{setting} = {value}") + (", then restart it" if restart else "")

    def slot_warning(self, *, heals: bool) -> str:
        """Return what to set if the provider drops idle slots and the reader does not create them again; else empty."""
        if heals or not self.drops_slots:
            return ""
        return (
            f"{self.name} drops a slot that no reader uses for {self.drops_slots}. With OUTHAUL_HEAL=auto the reader "
            "creates it again, and copies the skipped events from the outbox"
        )

    def explain(self, error: FatalError, role: str) -> FatalError:
        """Return the error of a refused replication connection, with what to do about it here.

        Args:
            error: the refusal; an ordinary connection with the same login opens.
            role: the role of the login.
        """
        match error.exit_code:
            case Exit.ROLE:
                todo = self.grant(role)
            case Exit.POSTGRES_LOGIN if self.name or not isinstance(error, PoolerError):
                todo = self._with_page(self.connection)
            case _:
                return error
        return type(error)(error.message, code=error.code, todo=todo, exit_code=error.exit_code)

    def _with_page(self, todo: str) -> str:
        return f"{todo} ({self.page})" if self.page else todo


SELF_RUN = Provider()

PROVIDERS = (
    Provider(
        name="Amazon RDS or Aurora",
        page="docs/managed/rds.md",
        role="rds_superuser",
        setting="rds.logical_replication",
        wal_level="Set rds.logical_replication = 1 in the parameter group of the instance (Aurora: of the cluster), "
        "then reboot it",
        any_setting="Set {0} in the parameter group of the instance (Aurora: of the cluster)",
        replication="GRANT rds_replication TO {0}",
        connection="Set OUTHAUL_POSTGRES_DSN to the instance (Aurora: to the writer), not to RDS Proxy",
    ),
    Provider(
        name="Google Cloud SQL",
        page="docs/managed/cloud-sql.md",
        role="cloudsqlsuperuser",
        setting="cloudsql.logical_decoding",
        wal_level="Set the flag cloudsql.logical_decoding = on of the instance, which restarts it",
        any_setting="Set the flag {0} of the instance",
        replication="ALTER ROLE {0} REPLICATION, as a member of cloudsqlsuperuser",
        connection="Set OUTHAUL_POSTGRES_DSN to the instance or to the Cloud SQL Auth Proxy, not to a pooler",
    ),
    Provider(
        name="Azure Database for PostgreSQL",
        page="docs/managed/azure.md",
        role="azure_pg_admin",
        setting="azure.extensions",
        wal_level="Set the server parameter wal_level = logical, save it, and restart the server",
        any_setting="Set the server parameter {0}",
        replication="ALTER ROLE {0} REPLICATION, as the server's admin",
        connection="Set OUTHAUL_POSTGRES_DSN to port 5432, not to the built-in PgBouncer on port 6432",
        fixed=("max_slot_wal_keep_size",),
    ),
    Provider(
        name="Supabase",
        page="docs/managed/supabase.md",
        role="supabase_admin",
        wal_level="wal_level is logical by default on Supabase: ask its support",
        any_setting="supabase postgres-config update --config '{0}'",
        replication="ALTER ROLE {0} REPLICATION, as postgres (Postgres 17; before, only postgres itself can replicate)",
        connection="Set OUTHAUL_POSTGRES_DSN to the direct connection, db.<project>.supabase.co, not to the pooler",
    ),
    Provider(
        name="Neon",
        page="docs/managed/neon.md",
        role="neon_superuser",
        setting="neon.timeline_id",
        wal_level="Enable logical replication in the settings of the Neon project",
        any_setting="Ask Neon's support to set {0}",
        replication="Create the role in the Neon Console: roles that SQL creates lack the right. Or, as a role of the "
        "Console: ALTER ROLE {0} REPLICATION",
        connection="Set OUTHAUL_POSTGRES_DSN to the direct connection: the host without -pooler",
        drops_slots="about 40 hours",
    ),
)


def provider_of(conn: Connection) -> Provider:
    """Return the provider that runs a server, by its roles, or else by its settings; `SELF_RUN` if it shows neither.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    roles = {row["name"] for row in conn.fetch(_ROLES, [[one.role for one in PROVIDERS]])}
    for one in PROVIDERS:
        if one.role in roles:
            return one
    settings = {row["name"] for row in conn.fetch(_SETTINGS, [[one.setting for one in PROVIDERS if one.setting]])}
    return next((one for one in PROVIDERS if one.setting in settings), SELF_RUN)
