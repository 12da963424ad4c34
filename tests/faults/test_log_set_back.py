"""A server whose disk is set back writes used positions again: the reader does not take new rows for stored."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from outhaul.deploy.local.stack import Stack
from tests import roles
from tests.acceptance.commands import asked, outhaul
from tests.conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import World


class Server:
    """A Postgres of this test's own, whose data folder is copied and put back while it is down."""

    def __init__(self, folder: Path) -> None:
        """Start it."""
        self.stack = Stack(folder)
        self.stack.up(["postgres"])
        self.dsn = self.stack.env()["OUTHAUL_POSTGRES_DSN"]
        with self.connect() as conn:
            roles.create(conn)
            self._data = Path(str((conn.execute("SHOW data_directory").fetchone() or [""])[0]))
        self._copy = self._data.with_name(f"{self._data.name}-snapshot")

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn, autocommit=True)

    def take_snapshot(self) -> None:
        self.stack.kill("postgres")
        self._copy_folder(self._data, self._copy)
        self.stack.up(["postgres"])

    def set_back(self) -> None:
        self.stack.kill("postgres")
        shutil.rmtree(self._data)
        self._copy_folder(self._copy, self._data)
        self.stack.up(["postgres"])

    def insert(self, count: int) -> None:
        with self.connect() as conn:
            conn.execute(
                "INSERT INTO outbox (event_type, environment, event_context) "
                "SELECT 'tested', 'test', '{}' FROM generate_series(1, %s)",
                [count],
            )

    def close(self) -> None:
        self.stack.down()
        shutil.rmtree(self._copy, ignore_errors=True)

    @staticmethod
    def _copy_folder(source: Path, target: Path) -> None:
        subprocess.run(["cp", "-a", str(source), str(target)], check=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "own")
    yield server
    server.close()


def with_snapshot(make_world: Callable[..., World], server: Server) -> World:
    """Run a pipeline whose server has ten stored events in its snapshot."""
    world = make_world(postgres_dsn=server.dsn)
    world.pipeline.start("worker", "reader")
    server.insert(10)
    until(lambda: world.stored() == 10)
    world.pipeline.stop("reader")
    server.take_snapshot()
    world.pipeline.start("reader")
    return world


def test_a_log_that_ends_before_a_stored_position_stops_the_reader(
    make_world: Callable[..., World], server: Server
) -> None:
    world = with_snapshot(make_world, server)
    server.insert(2000)
    until(lambda: world.stored() == 2010)
    world.pipeline.stop("reader")
    server.set_back()
    server.insert(3)
    said = outhaul(world, "reader", code=19)
    assert "the server was set back" in said
    assert "slot reset --recreate" in said
    assert world.stored() == 2010
    assert "may have other events" in outhaul(world, "setup", "--rebind", code=19)
    assert asked(world, "slot", "reset", "--recreate", "--yes")["stored"] == 3
    world.pipeline.start("reader")
    server.insert(5)
    until(lambda: world.stored() == 2018)
    assert asked(world, "verify", code=1)["missing"] == 0
    assert (
        world.ch("SELECT count() FROM (SELECT 1 FROM event_log GROUP BY cdc_lsn, cdc_ordinal HAVING count() > 1)") == 0
    )


@pytest.mark.thorough
def test_a_log_that_has_grown_past_the_stored_positions_stops_the_reader_too(
    make_world: Callable[..., World], server: Server
) -> None:
    world = with_snapshot(make_world, server)
    for _ in range(20):
        server.insert(5)
    until(lambda: world.stored() == 110)
    world.pipeline.stop("reader")
    server.set_back()
    for _ in range(10):
        server.insert(300)
    said = outhaul(world, "reader", code=19)
    assert "where the log of this server has none" in said
    done = asked(world, "slot", "reset", "--recreate", "--yes")
    world.pipeline.start("reader")
    server.insert(1)
    until(lambda: world.stored() == 110 + 3001)
    assert asked(world, "verify")["missing"] == 0
    assert done["stored"] > 0
