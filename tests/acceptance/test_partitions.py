"""`outhaul prune` and a partitioned outbox: partitions go whole where each row is stored, and coming ones are made."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests import launch
from tests.acceptance.test_letters import outhaul
from tests.acceptance.test_prune import all_stored, forget, ids, insert_old, pruned
from tests.conftest import World, until
from tests.launch import OUTHAUL

if TYPE_CHECKING:
    from collections.abc import Callable

MONTHLY = (
    "CREATE TABLE outbox (id bigserial, event_type varchar(255) NOT NULL, event_date_time timestamptz NOT NULL, "
    "environment varchar(255) NOT NULL, event_context jsonb NOT NULL, metadata_version bigint DEFAULT 1, "
    "event_key text, PRIMARY KEY (id, event_date_time)) PARTITION BY RANGE (event_date_time)"
)


def roots(world: World) -> list[str]:
    rows = world.conn.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'outbox'::regclass ORDER BY 1"
    )
    return [row[0] for row in rows]


def partitioned(make_world: Callable[..., World], *statements: str) -> World:
    world = make_world(setup=False)
    for statement in statements:
        world.conn.execute(statement.encode())
    launch.run("setup", env=world.env).check_returncode()
    world.pipeline.start("worker", "reader")
    return world


def test_old_partitions_are_dropped_whole_where_each_row_is_stored_and_coming_ones_are_made(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    world = partitioned(
        make_world,
        MONTHLY,
        "DO $$BEGIN FOR n IN 0..4 LOOP EXECUTE format('CREATE TABLE outbox_%s PARTITION OF outbox FOR VALUES FROM (%L) "
        "TO (%L)', n, date_trunc('month', now()) - (4 - n) * interval '1 month', "
        "date_trunc('month', now()) - (3 - n) * interval '1 month'); END LOOP; END$$",
    )
    for n in range(5):
        world.conn.execute(
            "INSERT INTO outbox (event_type, event_date_time, environment, event_context) SELECT 'p', "
            "date_trunc('month', now()) - %s * interval '1 month', 'test', '{}' FROM generate_series(1, 10)",
            [4 - n],
        )
    all_stored(world, 50)
    forget(world, "id = 15")
    arguments = ["--older-than", "40d", "--partitions-ahead", "2"]
    code, told = pruned(world, *arguments, "--dry-run")
    assert (code, told["partitions_dropped"]) == (1, ["outbox_0", "outbox_2"])
    assert (len(told["partitions_created"]), len(roots(world)), len(ids(world))) == (2, 5, 50)

    points = tmp_path / "points"
    points.mkdir()
    (points / "prune.dropping").write_text("kill")
    killed = outhaul(world, "prune", "--yes", *arguments, OUTHAUL_FAILPOINTS=str(points))[0]
    assert killed == -signal.SIGKILL
    assert len(ids(world)) == 50

    code, done = pruned(world, *arguments)
    assert (code, done["partitions_dropped"], done["lacking_ids"]) == (1, ["outbox_0", "outbox_2"], [15])
    # Those of the month before the last are not older than 40 days, or they went one by one.
    assert [number for number in ids(world) if number <= 30] == [15]
    assert done["removed"] >= 29
    assert "outbox_1" in roots(world)
    assert len(roots(world)) == 5
    assert done["partitions_created"] == []
    ahead = world.sql("SELECT date_trunc('month', now()) + interval '1 month' + interval '1 day'")
    world.conn.execute(
        "INSERT INTO outbox (event_type, event_date_time, environment, event_context) VALUES ('ahead', %s, 'e', '{}')",
        [ahead],
    )
    until(lambda: world.ch("SELECT count() FROM event_log WHERE event_type = 'ahead'") == 1)
    world.pipeline.check()


@pytest.mark.thorough
def test_partitions_of_ids_go_whole_too_and_an_empty_one_that_is_to_come_stays(
    make_world: Callable[..., World],
) -> None:
    world = partitioned(
        make_world,
        MONTHLY.replace("PRIMARY KEY (id, event_date_time)", "PRIMARY KEY (id)").replace(
            "RANGE (event_date_time)", "RANGE (id)"
        ),
        "CREATE TABLE outbox_a PARTITION OF outbox FOR VALUES FROM (1) TO (11)",
        "CREATE TABLE outbox_b PARTITION OF outbox FOR VALUES FROM (11) TO (21)",
        "CREATE TABLE outbox_c PARTITION OF outbox FOR VALUES FROM (21) TO (31)",
    )
    insert_old(world, 15)
    world.conn.execute(
        "INSERT INTO outbox (event_type, event_date_time, environment, event_context) VALUES ('new', now(), 'e', '{}')"
    )
    all_stored(world, 16)
    code, done = pruned(world, "--partitions-ahead", "2")
    assert (code, done["partitions_dropped"], done["removed"]) == (0, ["outbox_a"], 15)
    assert ids(world) == [16]
    assert done["partitions_created"] == ["public.outbox_from_31"]
    assert roots(world) == ["outbox_b", "outbox_c", "outbox_from_31"]


@pytest.mark.thorough
def test_a_partition_that_grew_since_it_was_proven_is_not_dropped(make_world: Callable[..., World]) -> None:
    world = partitioned(make_world, MONTHLY, "CREATE TABLE outbox_a PARTITION OF outbox DEFAULT")
    world.conn.execute("CREATE TABLE outbox_b PARTITION OF outbox FOR VALUES FROM ('2020-01-01Z') TO ('2020-02-01Z')")
    world.conn.execute(
        "INSERT INTO outbox (event_type, event_date_time, environment, event_context) "
        "SELECT 'p', '2020-01-05Z', 'e', '{}' FROM generate_series(1, 3)"
    )
    all_stored(world, 3)
    world.pipeline.stop("reader")
    points = world.logs / "points"
    points.mkdir()
    (points / "prune.proven").write_text("stop")
    process = subprocess.Popen(
        [OUTHAUL, "prune", "--older-than", "7d", "--yes", "--json"],
        env=os.environ | world.env | {"OUTHAUL_FAILPOINTS": str(points)},
        stdout=subprocess.PIPE,
    )
    until((points / "prune.proven.fired").exists, what="the partition is proven")
    world.conn.execute(
        "INSERT INTO outbox (event_type, event_date_time, environment, event_context) "
        "VALUES ('late', '2020-01-06Z', 'e', '{}')"
    )
    # It stops itself a moment after it has said so.
    until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    process.send_signal(signal.SIGCONT)
    out, _ = process.communicate(timeout=60)
    report = json.loads(out)
    assert (process.returncode, report["partitions_dropped"], report["lacking_ids"]) == (1, [], [4])
    assert ids(world) == [4]


@pytest.mark.thorough
def test_days_are_made_filled_and_dropped_under_load_and_every_event_is_stored_once(
    make_world: Callable[..., World],
) -> None:
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = [midnight + timedelta(days=number) for number in range(-10, 3)]
    made = (
        f"CREATE TABLE outbox_{n} PARTITION OF outbox FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
        for n, day in enumerate(days[:11])
    )
    world = partitioned(make_world, MONTHLY, *made)
    process = subprocess.Popen(
        [OUTHAUL, "prune", "--older-than", "7d", "--every", "1s", "--partitions-ahead", "2", "--yes", "--json"],
        env=os.environ | world.env,
        stdout=subprocess.PIPE,
    )
    try:
        committed = live_through(world, days)
        until(lambda: not {"outbox_0", "outbox_1"} & set(roots(world)), what="the oldest days are dropped")
    finally:
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    reports = [json.loads(line) for line in out.splitlines()]
    dropped = {name for one in reports for name in one["partitions_dropped"]}
    assert {"outbox_0", "outbox_1"} <= dropped <= {"outbox_0", "outbox_1", "outbox_2"}
    assert sum(len(one["partitions_created"]) for one in reports) == 2
    until(lambda: world.stored() == len(committed), what=f"{len(committed)} events stored")
    assert {row[0] for row in world.clickhouse.rows("SELECT id FROM event_log")} == committed
    assert len(ids(world)) < len(committed)
    # Rows that were deleted above an older one that stays are extra: `verify` knows the ends of the outbox alone.
    found = json.loads(launch.run("verify", "--deep", "--json", env=world.env).stdout.splitlines()[0])
    assert (found["rows"], found["missing"], found["differing"]) == (len(ids(world)), 0, 0)
    world.pipeline.check()


def live_through(world: World, days: list[datetime]) -> set[int]:
    """Write the events of one day after the other, in small transactions of which some fail; return the ids."""
    committed: set[int] = set()
    with psycopg.connect(world.dsn) as conn:
        for day in days:
            # A day that is to come has its partition by then, or has to wait for it.
            until(
                lambda day=day: world.sql(  # type: ignore[misc]
                    "SELECT true FROM pg_class WHERE relispartition AND relkind = 'r' AND "
                    "pg_get_expr(relpartbound, oid) LIKE %s",
                    f"FOR VALUES FROM ('{day:%Y-%m-%d}%",
                ),
                what=f"there is a partition for {day}",
            )
            for turn in range(40):
                rows = conn.execute(
                    "INSERT INTO outbox (event_type, event_date_time, environment, event_context) "
                    "SELECT 'p', %s::timestamptz + n * interval '1 minute', 'test', '{}' "
                    "FROM generate_series(1, %s) AS n RETURNING id",
                    [day, (1, 3, 50)[turn % 3]],
                ).fetchall()
                if turn % 5:
                    conn.commit()
                    committed |= {row[0] for row in rows}
                else:
                    conn.rollback()
    return committed
