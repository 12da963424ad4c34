"""The Django app on a real Postgres: its migration, its model in transactions, and what `manage.py check` says."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import django
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction
from psycopg.conninfo import conninfo_to_dict

if not settings.configured:
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "none yet"}},
        INSTALLED_APPS=["outhaul.django"],
        OUTHAUL_ENVIRONMENT="test",
        USE_TZ=True,
    )
    django.setup()

from outhaul import Event, EventError
from outhaul.django.checks import check_publication, check_settings, check_transactions
from outhaul.django.models import OutboxEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from django.core import checks

    from tests.conftest import World

LEGACY = """
    DROP TABLE outbox;
    CREATE TABLE outbox (
        id bigserial PRIMARY KEY, event_type varchar(255) NOT NULL, event_date_time timestamptz DEFAULT now(),
        environment varchar(255) NOT NULL, event_context jsonb NOT NULL, metadata_version bigint DEFAULT 1,
        processed boolean NOT NULL DEFAULT false
    );
    INSERT INTO outbox (event_type, environment, event_context) VALUES ('old', 'test', '{}')"""


def connect(world: World) -> None:
    """Let Django's connection be to a world's database, as the app's migration leaves it."""
    connection.close()
    there = conninfo_to_dict(world.dsn)
    given = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    connection.settings_dict.update({name: there.get(key) for name, key in given.items()})
    call_command("migrate", verbosity=0)


@pytest.fixture
def world(make_world: Callable[..., World]) -> Iterator[World]:
    """A database with Django connected to it."""
    made = make_world()
    connect(made)
    yield made
    connection.close()


def kinds() -> list[str]:
    return [event.event_type for event in OutboxEvent.objects.order_by("pk")]


def test_an_event_stands_or_falls_with_its_transaction(world: World) -> None:
    def emit_and_fail(kind: str) -> None:
        with transaction.atomic():
            OutboxEvent.emit(kind, {})
            raise ZeroDivisionError

    with transaction.atomic():
        assert OutboxEvent.emit("kept", {})
        with pytest.raises(ZeroDivisionError):
            emit_and_fail("savepoint")
    with pytest.raises(ZeroDivisionError):
        emit_and_fail("lost")
    assert kinds() == ["kept"]


def test_every_value_arrives_as_it_is(world: World) -> None:
    at, number = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), uuid.uuid4()
    with transaction.atomic():
        OutboxEvent.emit(
            "é", {"exact": Decimal("1.10"), "id": number, "at": at}, at=at, version=7, key="k", environment="e"
        )
        OutboxEvent(event_type="m", environment="e", event_context={"exact": Decimal("1.10"), "id": number}).save()
    rows = world.conn.execute(
        "SELECT event_type, event_date_time, environment, event_context::text, metadata_version, event_key "
        "FROM outbox ORDER BY id"
    ).fetchall()
    assert rows[0][:3] == ("é", at, "e")
    assert f'"id": "{number}"' in rows[0][3]
    assert '"exact": 1.10' in rows[0][3]
    assert rows[0][4:] == (7, "k")
    assert rows[1][0] == "m"
    assert '"exact": 1.10' in rows[1][3]
    assert rows[1][4:] == (1, None)


def test_a_key_is_new_once(world: World) -> None:
    with transaction.atomic():
        assert OutboxEvent.emit("a", {}, key="k")
        assert not OutboxEvent.emit("b", {}, key="k")
        events = [Event("c", {}, key=key) for key in ("k", "l", "l", None)]
        assert OutboxEvent.emit_many(events) == [False, True, False, True]
    assert kinds() == ["a", "c", "c"]


def test_outside_of_a_transaction_nothing_is_written(world: World) -> None:
    event = OutboxEvent(event_type="a", environment="e", event_context={})
    for write in (lambda: OutboxEvent.emit("a", {}), event.save, lambda: OutboxEvent.objects.bulk_create([event])):
        with pytest.raises(EventError, match=r"transaction\.atomic"):
            write()
    # A test's own transaction is not the app's.
    of_the_test: Any = transaction.atomic()
    of_the_test._from_testcase = True
    with of_the_test, pytest.raises(EventError, match=r"transaction\.atomic"):
        OutboxEvent.emit("a", {})
    assert kinds() == []


@pytest.mark.parametrize("bad", [{"event_type": ""}, {"event_context": {"n": float("nan")}}, {"event_key": "a\0b"}])
def test_a_bad_event_raises_before_the_database_is_asked(world: World, bad: dict[str, Any]) -> None:
    good = {"event_type": "a", "environment": "e", "event_context": {}}
    with transaction.atomic():
        for write in (
            lambda: OutboxEvent(**good | bad).save(),
            lambda: OutboxEvent.objects.bulk_create([OutboxEvent(**good), OutboxEvent(**good | bad)]),
            lambda: OutboxEvent.objects.create(**good | bad),
        ):
            with pytest.raises(EventError):
                write()
        OutboxEvent.emit("good", {})
    assert kinds() == ["good"]


def test_many_rows_are_made_as_of_any_model(world: World) -> None:
    with transaction.atomic():
        made = OutboxEvent.objects.bulk_create(
            [OutboxEvent(event_type=f"n{n}", event_context={"n": n}) for n in range(3)]
        )
        assert all(event.pk for event in made)
        again = [OutboxEvent(event_type="k", event_context={}, event_key="k") for _ in range(2)]
        OutboxEvent.objects.bulk_create(again, ignore_conflicts=True)
    assert kinds() == ["n0", "n1", "n2", "k"]
    assert OutboxEvent.objects.filter(environment="test").count() == 4
    with transaction.atomic(), pytest.raises(EventError, match="cannot be changed"):
        OutboxEvent.objects.earliest("pk").save()


def test_a_table_that_was_there_before_keeps_its_rows_and_gets_keys(world: World) -> None:
    world.conn.execute(LEGACY)
    world.conn.execute("DELETE FROM django_migrations WHERE app = 'outhaul'")
    connection.close()
    call_command("migrate", verbosity=0)
    with transaction.atomic():
        OutboxEvent.emit("new", {}, key="k")
    assert world.conn.execute("SELECT event_type, processed FROM outbox ORDER BY id").fetchall() == [
        ("old", False),
        ("new", False),
    ]


def test_the_migration_is_what_the_model_says_and_takes_nothing_away(world: World) -> None:
    call_command("makemigrations", "outhaul", check=True, dry_run=True, verbosity=0)
    with transaction.atomic():
        OutboxEvent.emit("kept", {})
    call_command("migrate", "outhaul", "zero", verbosity=0)
    call_command("migrate", verbosity=0)
    assert kinds() == ["kept"]


def ids(found: list[checks.CheckMessage]) -> list[str | None]:
    return [one.id for one in found]


def test_check_names_a_table_that_is_not_published(world: World) -> None:
    assert check_publication(databases=["default"]) == []
    world.conn.execute("DROP PUBLICATION outhaul")
    assert ids(check_publication(databases=["default"])) == ["outhaul.W002"]
    assert check_publication(databases=None) == []


def test_check_names_an_event_without_a_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "use_cases.py").write_text("def f():\n    OutboxEvent.emit('a', {})\n")
    (tmp_path / "tests.py").write_text("OutboxEvent.emit('a', {})\n")
    (tmp_path / "broken.py").write_text("OutboxEvent.emit(\n")
    app = django.apps.AppConfig.create("outhaul.django")
    app.name, app.path = "users", str(tmp_path)
    monkeypatch.setattr(django.apps.apps, "get_app_configs", lambda: [app])
    (found,) = check_transactions()
    assert str(found).startswith(f"?: (outhaul.W001) {tmp_path}/use_cases.py:2 emits an event")
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    assert check_transactions() == []


def test_check_names_settings_that_will_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_settings() == []
    monkeypatch.setattr(settings, "OUTHAUL_TABLE", "a.b.c", raising=False)
    assert ids(check_settings()) == ["outhaul.E001"]
    monkeypatch.undo()
    monkeypatch.setattr(connection, "vendor", "sqlite")
    assert ids(check_settings()) == ["outhaul.E002"]
