"""`outhaul prune`: what leaves the outbox is old and in ClickHouse, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from celery.beat import Scheduler
from psycopg.conninfo import make_conninfo

from outhaul.cdc_reader.operate.pruning.outbox_table import OutboxTable
from outhaul.cdc_reader.postgres.query import connect
from outhaul.deploy.demo.pipeline import Pipeline
from outhaul.sink.app import make_app
from outhaul.sink.errors import Exit
from outhaul.sink.task_names import PRUNE
from tests.acceptance.load import repeating, writers
from tests.acceptance.test_letters import outhaul
from tests.conftest import World, until
from tests.launch import OUTHAUL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def insert_old(world: World, count: int, days: int = 10) -> None:
    world.conn.execute(
        "INSERT INTO outbox (event_type, event_date_time, environment, event_context) "
        "SELECT 'old', now() - %s * interval '1 day' - n * interval '1 millisecond', 'test', '{}' "
        "FROM generate_series(1, %s) AS n",
        [days, count],
    )


def pruned(world: World, *arguments: str, **env: str) -> tuple[int, Any]:
    code, out, err = outhaul(world, "prune", "--older-than", "7d", "--yes", "--json", *arguments, **env)
    assert out, err
    return code, json.loads(out)


def ids(world: World) -> list[int]:
    return [row[0] for row in world.conn.execute("SELECT id FROM outbox ORDER BY id")]


def all_stored(world: World, count: int) -> None:
    until(lambda: world.stored() == count, what=f"{count} rows stored")


def forget(world: World, condition: str) -> None:
    world.clickhouse.command("SYSTEM START MERGES event_log")
    world.clickhouse.command(f"ALTER TABLE event_log DELETE WHERE {condition}", settings={"mutations_sync": 1})


def test_rows_that_are_old_and_stored_go_and_the_pipeline_does_not_notice(running: World) -> None:
    insert_old(running, 20)
    running.insert(5)
    running.conn.execute(
        "INSERT INTO outbox (event_type, event_date_time, environment, event_context) VALUES "
        "('never', '-infinity', 'test', '{}'), ('early', '0044-03-15 BC', 'test', '{}'), ('none', NULL, 'test', '{}')"
    )
    all_stored(running, 26)
    until(lambda: running.ch("SELECT count() FROM event_log_dead_letters") == 2)
    code, report = pruned(running)
    assert (code, report["removed"], report["lacking"], report["examined"]) == (0, 22, 0, 28)
    assert ids(running) == [21, 22, 23, 24, 25, 28]
    assert running.stored() == 26
    running.insert(3)
    all_stored(running, 29)
    running.pipeline.check()
    assert pruned(running)[1]["removed"] == 0


def test_rows_that_clickhouse_lacks_stay_and_are_named(running: World) -> None:
    insert_old(running, 20)
    all_stored(running, 20)
    running.pipeline.stop("reader")
    insert_old(running, 3)
    forget(running, "id IN (4, 17)")
    code, report = pruned(running)
    assert (code, report["removed"], report["lacking"]) == (1, 18, 5)
    assert report["lacking_ids"] == [4, 17, 21, 22, 23] == ids(running)
    code, out, _ = outhaul(running, "prune", "--older-than", "7d", "--yes")
    assert code == 1
    assert "5 old rows stay, because ClickHouse lacks them: id 4, 17, 21, 22, 23" in out
    # Streamed at last, the later ones go.
    running.pipeline.start("reader")
    all_stored(running, 21)
    assert pruned(running)[1]["removed"] == 3
    assert ids(running) == [4, 17]


def test_rows_of_another_source_are_no_proof(running: World) -> None:
    insert_old(running, 2)
    all_stored(running, 2)
    code, report = pruned(running, OUTHAUL_SOURCE="another")
    assert (code, report["removed"], report["lacking"]) == (1, 0, 2)


def test_an_id_that_was_given_out_again_is_no_proof(running: World) -> None:
    insert_old(running, 5)
    all_stored(running, 5)
    running.pipeline.stop("reader")
    running.conn.execute("TRUNCATE outbox RESTART IDENTITY")
    insert_old(running, 5, days=20)
    # So that the time of the row that is stored lies among theirs.
    insert_old(running, 1, days=9)
    code, report = pruned(running)
    assert (code, report["removed"], report["lacking_ids"]) == (1, 0, [1, 2, 3, 4, 5, 6])


def test_a_dry_run_prints_what_a_run_does_and_changes_nothing(running: World) -> None:
    insert_old(running, 30)
    running.insert(5)
    all_stored(running, 35)
    forget(running, "id = 9")
    code, told = pruned(running, "--dry-run")
    assert ids(running) == list(range(1, 36))
    assert (code, told["dry_run"], told["removed"], told["lacking_ids"]) == (1, True, 29, [9])
    _, done = pruned(running)
    same = ("removed", "examined", "lacking", "lacking_ids", "partitions_dropped")
    assert {name: told[name] for name in same} == {name: done[name] for name in same}


@pytest.mark.thorough
@pytest.mark.slow
def test_a_hundred_thousand_rows_go_in_bounded_transactions_under_load(running: World) -> None:
    insert_old(running, 100_000)
    running.conn.execute("CREATE TABLE deletions (rows bigint, transaction xid8)")
    running.conn.execute(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN "
        "INSERT INTO deletions SELECT count(*), pg_current_xact_id() FROM gone; RETURN NULL; END$$"
    )
    running.conn.execute(
        "CREATE TRIGGER note AFTER DELETE ON outbox REFERENCING OLD TABLE AS gone EXECUTE FUNCTION note()"
    )
    until(lambda: running.stored() >= 100_000)
    probes: list[int] = []

    def probe(conn: psycopg.Connection) -> None:
        # An app's insert waits for no lock of the pass. If one did, this would fail, and the test with it.
        conn.execute("INSERT INTO outbox (event_type, environment, event_context) VALUES ('probe', 'e', '{}')")
        probes.append(1)

    impatient = make_conninfo(running.dsn, options="-c lock_timeout=2s")
    with writers(running), repeating(impatient, probe, every_s=0.01):
        code, report = pruned(running, "--batch", "4000")
    assert (code, report["removed"], report["batches"]) == (0, 100_000, 25)
    assert report["longest_batch_s"] > 0
    sizes = [row[0] for row in running.conn.execute("SELECT rows FROM deletions")]
    assert sum(sizes) == 100_000
    assert max(sizes) <= 4000
    assert running.sql("SELECT count(DISTINCT transaction) FROM deletions") == len(sizes) == 25
    assert len(probes) > 10
    left = set(ids(running))
    all_stored(running, 100_000 + len(left))
    found = {row[0] for row in running.clickhouse.rows("SELECT id FROM event_log WHERE event_type != 'old'")}
    assert found == left
    running.pipeline.check()


def test_a_pass_that_is_killed_leaves_fewer_rows_and_the_next_one_goes_on(running: World, tmp_path: Path) -> None:
    points = tmp_path / "points"
    points.mkdir()
    insert_old(running, 50)
    all_stored(running, 50)
    (points / "prune.deleted").write_text("kill@2")
    arguments = ["prune", "--older-than", "7d", "--yes", "--batch", "10"]
    assert outhaul(running, *arguments, OUTHAUL_FAILPOINTS=str(points))[0] == -signal.SIGKILL
    assert ids(running) == list(range(21, 51))
    assert outhaul(running, *arguments)[0] == 0
    assert ids(running) == []
    assert running.stored() == 50


def test_a_row_that_somebody_has_locked_waits_for_the_next_pass(running: World) -> None:
    insert_old(running, 10)
    all_stored(running, 10)
    with psycopg.connect(running.dsn) as conn:
        conn.execute("SELECT FROM outbox WHERE id = 3 FOR UPDATE")
        code, report = pruned(running)
        assert (code, report["removed"], report["locked"]) == (0, 9, 1)
        assert ids(running) == [3]
    assert pruned(running)[1]["removed"] == 1


def test_a_row_that_was_changed_since_it_was_proven_is_not_removed(world: World) -> None:
    insert_old(world, 2)
    with connect(world.dsn) as conn:
        table = OutboxTable(conn, world.outbox, dry_run=False)
        page = table.page(None, 10, datetime.now(UTC))
        world.conn.execute("UPDATE outbox SET event_date_time = now() WHERE id = 1")
        assert [row.id for row in page] == [1, 2]
        assert table.delete(page) == 1
    assert ids(world) == [1]


@pytest.fixture
def login(running: World) -> Any:
    """A role that may read the outbox and nothing else."""
    name = f"{running.settings.source}_pruner"
    running.conn.execute(f"CREATE ROLE {name} LOGIN")
    running.conn.execute(f"GRANT SELECT ON outbox TO {name}")
    yield make_conninfo(running.dsn, user=name), name
    running.conn.execute(f"DROP OWNED BY {name}")
    running.conn.execute(f"DROP ROLE {name}")


@pytest.mark.thorough
def test_a_role_without_delete_gets_the_grant_to_type_and_with_it_deletes(
    running: World, login: tuple[str, str]
) -> None:
    dsn, name = login
    insert_old(running, 10)
    all_stored(running, 10)
    arguments = ["prune", "--older-than", "7d", "--yes"]
    code, out, err = outhaul(running, *arguments, OUTHAUL_POSTGRES_DSN=dsn)
    assert (code, out, err.count("\n")) == (Exit.ROLE, "", 1)
    assert f"GRANT DELETE ON outbox TO {name}" in err
    assert pruned(running, "--dry-run", OUTHAUL_POSTGRES_DSN=dsn)[1]["removed"] == 10
    assert len(ids(running)) == 10
    running.conn.execute(f"GRANT DELETE ON outbox TO {name}")
    with psycopg.connect(running.dsn) as conn:
        # Without UPDATE it may not look which rows are locked, so it leaves the batch.
        conn.execute("SELECT FROM outbox WHERE id = 3 FOR UPDATE")
        code, report = pruned(running, OUTHAUL_POSTGRES_DSN=dsn)
        assert (code, report["removed"], report["locked"]) == (0, 0, 10)
        running.conn.execute(f"GRANT UPDATE (event_type) ON outbox TO {name}")
        code, report = pruned(running, OUTHAUL_POSTGRES_DSN=dsn)
        assert (code, report["removed"], report["locked"]) == (0, 9, 1)
    assert pruned(running, OUTHAUL_POSTGRES_DSN=dsn)[1]["removed"] == 1


def test_nothing_goes_without_consent(running: World) -> None:
    insert_old(running, 3)
    all_stored(running, 3)
    code, out, err = outhaul(running, "prune", "--older-than", "7d")
    assert (code, out) == (Exit.USAGE, "")
    assert "3 rows before" in err
    assert outhaul(running, "prune", "--yes")[0] == Exit.USAGE
    assert outhaul(running, "prune", "--yes", "--older-than", "soon")[0] == Exit.USAGE
    assert outhaul(running, "prune", "--yes", "--older-than", "7d", "--partitions-ahead", "1")[0] == Exit.USAGE
    assert len(ids(running)) == 3


def test_a_dead_server_a_wrong_password_or_a_missing_table_is_one_line_and_removes_nothing(running: World) -> None:
    insert_old(running, 3)
    all_stored(running, 3)
    url = running.env["OUTHAUL_CLICKHOUSE_URL"]
    host = url.rsplit("@", 1)[-1].split("://")[-1]
    cases = [
        ({"OUTHAUL_POSTGRES_DSN": "postgresql://127.0.0.1:1/x"}, Exit.POSTGRES_UNREACHABLE),
        ({"OUTHAUL_POSTGRES_DSN": make_conninfo(running.dsn, user="nobody_here")}, Exit.POSTGRES_LOGIN),
        ({"OUTHAUL_TABLE": "public.nothing"}, Exit.TABLE_MISSING),
        ({"OUTHAUL_CLICKHOUSE_URL": "http://127.0.0.1:1/x"}, Exit.CLICKHOUSE_UNREACHABLE),
        ({"OUTHAUL_CLICKHOUSE_URL": f"http://nobody:wrong@{host}"}, Exit.CLICKHOUSE_LOGIN),
        ({"OUTHAUL_CLICKHOUSE_TABLE": "nothing"}, Exit.CLICKHOUSE_TABLE),
    ]
    for env, exit_code in cases:
        for more in ([], ["--dry-run"]):
            code, out, err = outhaul(running, "prune", "--older-than", "7d", "--yes", *more, **env)
            assert (code, out, err.count("\n")) == (exit_code, "", 1), (env, err)
    assert len(ids(running)) == 3


@pytest.mark.thorough
def test_every_repeats_until_sigterm(running: World) -> None:
    process = subprocess.Popen(
        [OUTHAUL, "prune", "--older-than", "1s", "--every", "1s", "--yes"], env=os.environ | running.env
    )
    try:
        for _ in range(2):
            running.insert(4)
            until(lambda: not ids(running), what="the rows grow old and go")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert running.stored() == 8


@pytest.mark.thorough
def test_celery_beat_s_message_makes_one_pass(make_world: Callable[..., World]) -> None:
    world = make_world(prune_older_than="7d")
    # Pruning takes more rights than the reader's; the workers that prune have them.
    world.pipeline = Pipeline(world.env, world.logs)
    world.pipeline.start("worker", "reader")
    insert_old(world, 12)
    world.insert(3)
    all_stored(world, 15)
    app = make_app(world.settings)
    scheduler = Scheduler(app=app, lazy=True)
    scheduler.setup_schedule()
    entry = scheduler.schedule["prune"]
    assert entry.task == PRUNE
    scheduler.apply_async(entry)
    until(lambda: ids(world) == [13, 14, 15], what="the old rows are gone")
    # A message cannot ask for more than the settings do.
    app.send_task(PRUNE, args=("1s",), queue=world.settings.queue)
    until(lambda: "prune_refused" in world.pipeline.log("worker"), what="it is refused")
    assert ids(world) == [13, 14, 15]
    app.close()
