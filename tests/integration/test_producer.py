"""psycopg and SQLAlchemy on a real Postgres: events stand or fall with the caller's transaction, keys are new once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from outhaul import Event, EventError, Outbox, emit, emit_async, emit_many, emit_many_async
from outhaul import sqlalchemy as by_sqlalchemy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import World

LEGACY = """
    CREATE SCHEMA "Billing";
    CREATE TABLE "Billing"."Out%box" (
        id bigserial PRIMARY KEY, event_type varchar(255) NOT NULL, event_date_time timestamptz DEFAULT now(),
        environment varchar(255) NOT NULL, event_context jsonb NOT NULL, metadata_version bigint DEFAULT 1
    )"""
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Base(DeclarativeBase):
    """An app's own."""


class Row(by_sqlalchemy.OutboxEventMixin, Base):
    """An app's own class on the outbox."""


class Person(Base):
    """Something of the app's business."""

    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.Text, unique=True)


def event(kind: str = "t", **given: Any) -> Event:
    return Event(kind, given.pop("context", {}), environment="test", **given)


def kinds(world: World) -> list[str]:
    return [row[0] for row in world.conn.execute("SELECT event_type FROM outbox ORDER BY id")]


@pytest.fixture
def conn(world: World) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(world.dsn) as made:
        yield made
        made.rollback()


def url(world: World, driver: str) -> str:
    return "postgresql+{driver}://{user}@{host}:{port}/{dbname}".format(driver=driver, **conninfo_to_dict(world.dsn))


@pytest.fixture(params=["psycopg", "psycopg2"])
def engine(world: World, request: pytest.FixtureRequest) -> Iterator[sa.Engine]:
    made = sa.create_engine(url(world, request.param))
    world.conn.execute("CREATE TABLE people (id serial PRIMARY KEY, name text UNIQUE)")
    yield made
    made.dispose()


# psycopg


def test_an_event_stands_or_falls_with_the_transaction_and_nothing_is_committed(world: World) -> None:
    with psycopg.connect(world.dsn) as conn:
        emit(conn, event("kept"))
        assert kinds(world) == []

        def fail() -> None:
            with conn.transaction():
                emit(conn, event("savepoint"))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
    with psycopg.connect(world.dsn) as conn:
        emit(conn, event("lost"))
        conn.rollback()
    assert kinds(world) == ["kept"]


def test_every_part_arrives_as_it_is(world: World, conn: psycopg.Connection[Any]) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)
    context = {"é": "\u20ac \U0001f642 \\ \" % ' {}", "big": 12345678901234567890123, "list": [1, None, True]}
    emit(conn, Event("t%s", context, environment="e'", at=at, version=7, key="k%"))
    conn.commit()
    (row,) = world.conn.execute(
        "SELECT event_type, event_date_time, environment, event_context::text, metadata_version, event_key FROM outbox"
    )
    assert row[:3] == ("t%s", at, "e'")
    assert json.loads(row[3]) == context
    assert row[4:] == (7, "k%")


def test_outside_of_a_transaction_nothing_is_written(world: World) -> None:
    with psycopg.connect(world.dsn, autocommit=True) as conn:
        with pytest.raises(EventError, match=r"conn\.transaction"):
            emit(conn, event())
        with conn.transaction():
            emit(conn, event("inside"))
        with conn.pipeline(), conn.transaction():
            assert emit(conn, event("pipeline", key="k"))
    assert kinds(world) == ["inside", "pipeline"]


def test_of_many_with_keys_the_first_that_ever_came_is_new(world: World, conn: psycopg.Connection[Any]) -> None:
    emit(conn, event("old", key="a"))
    keys = ["a", "b", None, "b", None, "c"]
    assert emit_many(conn, [event(f"n{n}", key=key) for n, key in enumerate(keys)]) == [
        False,
        True,
        True,
        False,
        True,
        True,
    ]
    assert emit_many(conn, []) == []
    assert emit_many(conn, (event("many") for _ in range(2500))) == [True] * 2500
    conn.commit()
    assert kinds(world)[:5] == ["old", "n1", "n2", "n4", "n5"]
    assert kinds(world).count("many") == 2500


def test_the_same_key_of_eight_writers_a_hundred_times_is_one_event_each(world: World) -> None:
    def write(_writer: int) -> int:
        new = 0
        with psycopg.connect(world.dsn, autocommit=True) as conn:
            for number in range(100):
                with conn.transaction():
                    new += emit(conn, event(key=f"k{number}"))
        return new

    with ThreadPoolExecutor(8) as writers:
        assert sum(writers.map(write, range(8))) == 100
    assert len(kinds(world)) == 100


def test_a_key_of_what_was_rolled_back_is_free(world: World, conn: psycopg.Connection[Any]) -> None:
    assert emit(conn, event("lost", key="k"))
    conn.rollback()
    assert emit(conn, event("kept", key="k"))
    conn.commit()
    assert kinds(world) == ["kept"]


def test_an_outbox_of_another_name_and_without_keys(world: World, conn: psycopg.Connection[Any]) -> None:
    world.conn.execute(LEGACY)
    outbox = Outbox(table="Billing.Out%box", environment="billing")
    assert outbox.emit(conn, Event("t", {}))
    with pytest.raises(EventError, match=r'ALTER TABLE "Billing"\."Out%box" ADD COLUMN event_key text UNIQUE'):
        outbox.emit(conn, event(key="k"))
    with pytest.raises(EventError, match="no environment"):
        emit(conn, Event("t", {}))
    # Nothing was sent, so the transaction goes on.
    conn.commit()
    assert world.sql('SELECT environment FROM "Billing"."Out%box"') == "billing"
    world.conn.execute('ALTER TABLE "Billing"."Out%box" ADD COLUMN event_key text UNIQUE')
    assert outbox.emit(conn, event(key="k"))


def test_the_app_s_role_is_enough(world: World, conn: psycopg.Connection[Any]) -> None:
    conn.execute("SET ROLE outhaul_app")
    assert emit_many(conn, [event(key="k"), event(key="k"), event()]) == [True, False, True]


def test_a_trace_goes_along_where_there_is_a_column(world: World, conn: psycopg.Connection[Any]) -> None:
    with pytest.raises(EventError, match="ADD COLUMN traceparent"):
        emit(conn, event(traceparent=TRACE))
    world.conn.execute("ALTER TABLE outbox ADD COLUMN traceparent text")
    emit(conn, event(traceparent=TRACE))
    opentelemetry = pytest.importorskip("opentelemetry.trace")
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    with opentelemetry.use_span(sdk.TracerProvider().get_tracer("t").start_span("s")) as span:
        emit(conn, event())
    emit(conn, event())
    conn.commit()
    found = [row[0] for row in world.conn.execute("SELECT traceparent FROM outbox ORDER BY id")]
    assert found[0] == TRACE
    assert f"{span.get_span_context().trace_id:032x}" in found[1]
    assert found[2] is None


def test_async_is_the_same(world: World) -> None:
    async def write() -> list[bool]:
        async with await psycopg.AsyncConnection.connect(world.dsn) as conn:
            assert await emit_async(conn, event("a", key="k"))
            with pytest.raises(EventError, match="emit_async"):
                emit(conn, event())  # type: ignore[arg-type] # that is the point
            return await emit_many_async(conn, [event("b", key="k"), event("c")])

    assert asyncio.run(write()) == [False, True]
    assert kinds(world) == ["a", "c"]


def test_into_the_log_alone_asks_no_table_and_knows_no_keys(world: World, conn: psycopg.Connection[Any]) -> None:
    log = Outbox(environment="test", via="wal")
    world.conn.execute("DROP TABLE outbox CASCADE")
    assert log.emit_many(conn, [Event("a", {"n": 1}), Event("b", {"%": "'"})]) == [True, True]
    with pytest.raises(EventError, match="cannot have a key"):
        log.emit(conn, event(key="k"))
    conn.commit()


# SQLAlchemy


def test_a_session_is_flushed_first_and_the_event_is_of_its_transaction(world: World, engine: sa.Engine) -> None:
    with Session(engine) as session, session.begin():
        session.add(Person(name="ada"))
        assert by_sqlalchemy.emit(session, event("kept", key="k", context={"%": "%s $1"}))
        assert session.execute(sa.text("SELECT count(*) FROM people")).scalar() == 1
        assert not by_sqlalchemy.emit(session, event("again", key="k"))

        def fail() -> None:
            with session.begin_nested():
                by_sqlalchemy.emit(session, event("savepoint"))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
    assert kinds(world) == ["kept"]

    def take(name: str) -> None:
        with Session(engine) as session, session.begin():
            session.add(Person(name=name))
            by_sqlalchemy.emit(session, event("taken"))

    with pytest.raises(sa.exc.IntegrityError):
        take("ada")
    assert kinds(world) == ["kept"]


def test_a_connection_that_commits_by_itself_is_refused(world: World, engine: sa.Engine) -> None:
    by_itself = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    with by_itself as conn, pytest.raises(EventError, match="autocommit"):
        by_sqlalchemy.emit(conn, event())
    with engine.begin() as conn:
        assert by_sqlalchemy.emit_many(conn, [event("a"), event("b")]) == [True, True]
    assert kinds(world) == ["a", "b"]


def test_a_class_of_the_app_s_own_is_checked_and_written_exactly(world: World, engine: sa.Engine) -> None:
    with Session(engine) as session, session.begin():
        session.add(Row(event_type="t", environment="e", event_context={"big": 12345678901234567890123}))
    assert "12345678901234567890123" in world.sql("SELECT event_context::text FROM outbox")
    with pytest.raises(EventError, match="NaN"):
        Row(event_type="t", environment="e", event_context={"n": float("nan")})
    with pytest.raises(EventError, match="event_type"):
        Row(event_type="", environment="e", event_context={})


def test_the_table_is_that_of_setup(world: World, engine: sa.Engine) -> None:
    described = sa.text(
        "SELECT column_name, data_type, character_maximum_length, is_nullable, column_default IS NULL "
        "FROM information_schema.columns WHERE table_name = :name ORDER BY ordinal_position"
    )
    metadata = sa.MetaData()
    by_sqlalchemy.outbox_table(metadata, "other")
    metadata.create_all(engine)
    with engine.connect() as conn:
        ours, theirs = ([tuple(row) for row in conn.execute(described, {"name": name})] for name in ("outbox", "other"))
    assert ours == theirs


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_an_async_session_is_the_same(world: World, driver: str) -> None:
    async def write() -> list[bool]:
        engine = create_async_engine(url(world, driver))
        try:
            async with AsyncSession(engine) as session, session.begin():
                assert await by_sqlalchemy.emit_async(session, event("a", key="k", context={"%": "%s"}))
                with pytest.raises(EventError, match="emit_async"):
                    by_sqlalchemy.emit(session, event())  # type: ignore[arg-type] # that is the point
                return await by_sqlalchemy.emit_many_async(session, [event("b", key="k"), event("c")])
        finally:
            await engine.dispose()

    assert asyncio.run(write()) == [False, True]
    assert kinds(world) == ["a", "c"]


def test_nothing_is_imported_that_an_app_does_not_use() -> None:
    heavy = "{'sqlalchemy', 'django', 'sentry_sdk', 'outhaul.sink'}"
    code = f"import sys; from outhaul import emit; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_connections_of_a_pool_write_as_any_other(world: World) -> None:
    with ConnectionPool(world.dsn, min_size=1, max_size=2) as pool:
        for number in range(3):
            with pool.connection() as conn, pool.connection() as other:
                assert emit(conn, event(key=str(number)))
                assert emit_many(other, [event("plain"), event("plain")]) == [True, True]
        with contextlib.suppress(ZeroDivisionError), pool.connection() as conn:
            emit(conn, event("never"))
            raise ZeroDivisionError
        with pool.connection() as conn:
            assert emit_many(conn, [event(key="2"), event(key="3")]) == [False, True]

    async def write() -> bool:
        pool = AsyncConnectionPool(world.dsn, min_size=1, max_size=2, open=False)
        async with pool, pool.connection() as conn:
            return await emit_async(conn, event("async", key="async"))

    assert asyncio.run(write())
    assert sorted(kinds(world)) == sorted([*["t"] * 4, *["plain"] * 6, "async"])
