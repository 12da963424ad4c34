"""A role without one of its grants: who cannot do what, and that `doctor` names it before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from outhaul.cdc_reader.operate.doctor import postgres_checks
from outhaul.cdc_reader.operate.doctor.finding import State
from outhaul.cdc_reader.operate.exporter.audit import Audit
from outhaul.cdc_reader.operate.exporter.postgres_metrics import collect
from outhaul.cdc_reader.operate.setup import apply_postgres
from outhaul.cdc_reader.postgres.errors import NotAllowedError
from outhaul.cdc_reader.postgres.query import connect
from outhaul.sink.settings import load_from
from tests import roles

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.operate.doctor.finding import Finding
    from tests.conftest import World

INSERT = "INSERT INTO app.outbox (event_type, environment, event_context, event_key) VALUES ('t', 'x', '{}', 'k')"
CONFLICT = "ON CONFLICT (event_key) DO NOTHING"


@pytest.fixture
def own(make_world: Callable[..., World]) -> World:
    """A pipeline whose outbox is in a schema of its own, so that each grant matters."""
    made = make_world(setup=False, table="app.outbox")
    made.conn.execute("CREATE SCHEMA app")
    apply_postgres(made.settings, lambda _: None)
    return made


def found(world: World) -> dict[str, Finding]:
    """Look as the reader does."""
    env = roles.for_processes(world.env)
    settings = load_from(env)
    asked = postgres_checks.ask(settings.undivided, settings.outboxes())
    judged = postgres_checks.judge(asked, settings.undivided, settings.outboxes()[0])
    return {one.check: one for one in judged}


def test_the_two_roles_can_do_their_work_and_nothing_else(own: World) -> None:
    with psycopg.connect(roles.as_app(own.dsn), autocommit=True) as app:
        assert app.execute(f"{INSERT} {CONFLICT}").rowcount == 1
        assert app.execute(f"{INSERT} {CONFLICT}").rowcount == 0
        for refused in ("SELECT * FROM app.outbox", "DELETE FROM app.outbox", "UPDATE app.outbox SET event_type = 'x'"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                app.execute(refused.encode())
    with connect(roles.as_reader(own.dsn)) as reader:
        assert reader.fetch_value("SELECT count(*) FROM app.outbox") == 1
        for refused in (INSERT, "DELETE FROM app.outbox", "TRUNCATE app.outbox", "CREATE TABLE app.mine ()"):
            with pytest.raises(NotAllowedError):
                reader.execute(refused)
    seen = found(own)
    assert {
        name: seen[name].state for name in ("replication connection", "SELECT", "least privilege", "rights of apps")
    } == dict.fromkeys(("replication connection", "SELECT", "least privilege", "rights of apps"), State.PASS)


def test_the_exporter_compares_ids_and_can_read_nothing_of_what_events_say(world: World) -> None:
    world.pipeline.start("worker", "reader")
    world.insert(7)
    world.assert_once_each()
    env = world.env | {"OUTHAUL_POSTGRES_DSN": roles.as_auditor(world.dsn)}
    settings = load_from(env)
    audit = Audit(settings)
    figures = {one.name: one.samples[0].value for one in audit.run_pass() if one.samples}
    assert figures["outhaul_audit_compared_events"] == 7
    assert figures["outhaul_audit_missing_events"] == 0
    collect(settings)
    with connect(settings.postgres_dsn.get_secret_value()) as conn, pytest.raises(NotAllowedError):
        conn.execute("SELECT event_context FROM outbox")


@pytest.mark.parametrize(
    ("grant", "check"),
    [
        ("INSERT ON app.outbox", "rights of apps"),
        ("SELECT (event_key) ON app.outbox", "rights of apps"),
        ("USAGE ON SEQUENCE app.outbox_id_seq", "rights of apps"),
        ("USAGE ON SCHEMA app", "rights of apps"),
        ("SELECT ON app.outbox", "SELECT"),
    ],
)
def test_doctor_names_the_grant_that_is_missing_and_its_fix_mends_it(own: World, grant: str, check: str) -> None:
    role = "outhaul_reader" if check == "SELECT" else "outhaul_app"
    own.conn.execute(f"REVOKE {grant} FROM {role}".encode())
    if role == "outhaul_app":
        with psycopg.connect(roles.as_app(own.dsn)) as app, pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute(f"{INSERT} {CONFLICT}".encode())
    finding = found(own)[check]
    assert finding.state is State.WARN
    assert grant in finding.fix
    own.conn.execute(finding.fix.rpartition("or: ")[2].encode())
    assert found(own)[check].state is State.PASS
    own.conn.execute(f"REVOKE SELECT ON app.outbox FROM {roles.READER}".encode())


def test_a_reader_without_replication_or_schema_is_refused_by_name(own: World) -> None:
    own.conn.execute("REVOKE USAGE ON SCHEMA app FROM outhaul_reader")
    with pytest.raises(Exception, match="permission denied for schema app"):
        found(own)
    own.conn.execute("GRANT USAGE ON SCHEMA app TO outhaul_reader")
    own.conn.execute(f"ALTER ROLE {roles.READER} NOREPLICATION")
    try:
        seen = found(own)
        assert seen["replication connection"].state is State.FAIL
        assert f"ALTER ROLE {roles.READER} REPLICATION" in seen["replication connection"].fix
    finally:
        own.conn.execute(f"ALTER ROLE {roles.READER} REPLICATION")
