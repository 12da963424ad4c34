"""A slot on a real standby: how it is made, with and without the right to have it made at once, and what is refused."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from outhaul.cdc_reader.operate.setup import apply_postgres
from outhaul.cdc_reader.postgres.connect import check_stream, connect_stream, end_of_log, open_stream
from outhaul.cdc_reader.postgres.preflight import Server
from outhaul.cdc_reader.postgres.slot_view import slot_facts
from outhaul.cdc_reader.slots.create import create
from outhaul.sink.errors import Exit, FatalError, TransientError
from outhaul.sink.settings import Settings, load
from tests import roles
from tests.conftest import until
from tests.postgres_pair import Pair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psycopg

    from outhaul.cdc_reader.postgres.slot_view import SlotFacts
    from outhaul.deploy.local.stack import Stack

# A standby decodes since this version.
pytestmark = pytest.mark.postgres(16)

# The primary logs what runs every 15 s by itself.
_SHORT_S = 2.0


def ignore() -> None:
    return


def test_a_slot_on_a_standby_begins_when_the_primary_logs_what_runs(stack: Stack, tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    try:
        pair.start()
        settings = settings_of(pair.dsn_of(0), pair.dsn_of(1))
        assert check_stream(settings, Server(1.0)).wal_sender_timeout_s == 60
        with pytest.raises(FatalError, match="another cluster") as refused:
            check_stream(settings_of(stack.env()["OUTHAUL_POSTGRES_DSN"], pair.dsn_of(1)), Server(1.0))
        assert refused.value.exit_code is Exit.SETTINGS
        apply_postgres(settings, ignore_words, without_slots=True)

        plain = settings_of(roles.as_reader(pair.dsn_of(0)), roles.as_reader(pair.dsn_of(1)))
        # What the primary logs by itself may come just now, and is not enough while somebody writes.
        with (
            pair.primary() as writing,
            writing.transaction(),
            pytest.raises(TransientError, match="the primary to log which transactions run") as late,
            writes(writing),
            create(plain.undivided, within_s=_SHORT_S, waiting=ignore),
        ):
            pass
        assert "GRANT EXECUTE ON FUNCTION pg_log_standby_snapshot()" in late.value.todo
        with pair.primary() as conn:
            conn.execute(f"GRANT EXECUTE ON FUNCTION pg_log_standby_snapshot() TO {roles.READER}")
        until(lambda: facts_of(plain) is None, what="the attempt leaves nothing")
        with create(plain.undivided, within_s=20, waiting=ignore) as line, line.connect() as conn:
            assert conn.fetch_value("SELECT count(*) FROM outbox") == 0

        found = facts_of(plain)
        assert found is not None
        assert (found.problem, found.of_standby, found.is_copy) == (None, True, False)
        with closing(open_stream(plain.undivided)) as link:
            history = link.identify()
            assert (history.timeline, history.of_standby) == (1, True)
            assert link.holder() is None
            link.start(binary=True)
            with closing(open_stream(plain.undivided)) as other:
                assert other.holder() == link.pid
    finally:
        pair.close()


@contextmanager
def writes(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Let a transaction of this connection's be one that runs."""
    conn.execute("SELECT pg_current_xact_id()")
    yield


def settings_of(primary: str, standby: str) -> Settings:
    return load(postgres_dsn=primary, stream_dsn=standby)


def facts_of(settings: Settings) -> SlotFacts | None:
    with connect_stream(settings) as conn:
        assert end_of_log(conn)
        return slot_facts(conn, settings.undivided)


def ignore_words(_: str) -> None:
    return
