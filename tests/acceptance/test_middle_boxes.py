"""nginx and haproxy before ClickHouse, with what they do by default."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from outhaul.sink.errors import Exit
from tests.acceptance.metrics_pages import free_port
from tests.conftest import World, until
from tests.middle_boxes import HOST, haproxy, nginx

if TYPE_CHECKING:
    from pathlib import Path

INSERT = (
    "INSERT INTO outbox (event_type, environment, event_context) SELECT 'sized', 'test', jsonb_build_object('a', "
    "(SELECT string_agg(md5((n::bigint * 1000000 + m)::text), '') FROM generate_series(1, %s) AS m)) "
    "FROM generate_series(1, %s) AS n"
)


def through(world: World, port: int) -> dict[str, str]:
    parts = urlsplit(world.env["OUTHAUL_CLICKHOUSE_URL"])
    login = f"{parts.username}:{parts.password}@" if parts.username else ""
    return {"OUTHAUL_CLICKHOUSE_URL": f"http://{login}{HOST}:{port}{parts.path}"}


def upstream(world: World) -> int:
    return urlsplit(world.env["OUTHAUL_CLICKHOUSE_URL"]).port or 0


def test_bodies_that_nginx_refuses_are_divided_and_an_event_that_is_too_large_is_named(
    world: World, tmp_path: Path
) -> None:
    with nginx(tmp_path, upstream(world)) as port:
        world.pipeline.start("worker", "reader", **through(world, port))
        # 4,000 events of a kilobyte that does not compress.
        world.conn.execute(INSERT, [32, 4000])
        world.assert_once_each()
        world.conn.execute(INSERT, [50_000, 1])
        assert world.pipeline.wait("reader", 90) == Exit.CLICKHOUSE_REFUSED
        line = world.pipeline.log("reader").splitlines()[-1]
        assert f"id {world.sql('SELECT max(id) FROM outbox')} is too large to reach ClickHouse" in line
        assert "client_max_body_size" in line
    with nginx(tmp_path, upstream(world), "client_max_body_size 128m;") as port:
        world.pipeline.stop("worker")
        world.pipeline.start("worker", "reader", **through(world, port))
        world.assert_once_each()


@pytest.mark.thorough
def test_a_table_of_many_columns_makes_no_url_too_long_for_nginx(world: World, tmp_path: Path) -> None:
    columns = ", ".join(f"ADD COLUMN a_column_with_a_long_name_{number} int" for number in range(120))
    world.conn.execute(f"ALTER TABLE outbox {columns}".encode())
    with nginx(tmp_path, upstream(world), "client_max_body_size 0;") as port:
        world.pipeline.start("worker", "reader", **through(world, port))
        world.insert(100)
        world.assert_once_each()


@pytest.mark.parametrize(
    ("mode", "retries"),
    [
        ("http", 0),
        pytest.param("tcp", 0, marks=pytest.mark.thorough),
        # haproxy waits a second before it tries the dead server again, so every other request takes that long.
        pytest.param("http", 1, marks=[pytest.mark.long, pytest.mark.timeout(400)]),
    ],
)
def test_a_dead_server_of_two_behind_a_balancer_costs_no_start(
    world: World, tmp_path: Path, mode: str, retries: int
) -> None:
    with haproxy(tmp_path, [free_port(), upstream(world)], mode, retries) as port:
        for _ in range(1 if retries else 2):
            world.pipeline.start("worker", "reader", **through(world, port))
            world.insert(100)
            world.assert_once_each(within_s=300)
            world.pipeline.check()
            until(lambda: (state := world.reader_state()) and not state.in_flight_batches, what="all is reported")
            world.pipeline.stop()
