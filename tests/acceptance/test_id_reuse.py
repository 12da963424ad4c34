"""An id that Postgres gives again is another event: it is stored, once, and not pruned before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.commands import asked, outhaul
from tests.conftest import World, until

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ("missing", "extra", "differing", "repeated")


def truncated(world: World) -> int:
    world.conn.execute("TRUNCATE outbox RESTART IDENTITY")
    return 0


def set_back(world: World) -> int:
    """Rows that were stored are deleted, and their ids given again; the last 40 rows stay."""
    world.conn.execute("DELETE FROM outbox WHERE id <= 60")
    world.conn.execute("SELECT setval('outbox_id_seq', 5)")
    return 40


def restored(world: World) -> int:
    """A dump from before the last 40 events is restored."""
    world.conn.execute("CREATE TABLE dump AS SELECT * FROM outbox WHERE id <= 60")
    world.conn.execute("TRUNCATE outbox")
    world.conn.execute("INSERT INTO outbox SELECT * FROM dump")
    world.conn.execute("SELECT setval('outbox_id_seq', 60)")
    return 60


def without_slot(world: World) -> None:
    """Drop the slot of a pipeline that has stored all."""
    world.pipeline.stop("reader")
    world.conn.execute("SELECT pg_drop_replication_slot(%s)", [world.settings.slot])


def streaming(world: World) -> None:
    world.pipeline.start("reader")
    until(lambda: (state := world.reader_state()) and state.phase == "streaming", what="reader streams")


def assert_agrees(world: World, rows: int) -> None:
    report = asked(world, "verify", "--deep")
    assert {kind: report[kind] for kind in KINDS} == dict.fromkeys(KINDS, 0)
    assert report["rows"] == rows


@pytest.mark.parametrize(
    "how", [truncated, *(pytest.param(one, marks=pytest.mark.thorough) for one in (set_back, restored))]
)
def test_ids_that_are_given_again_are_other_events(running: World, how: Callable[[World], int]) -> None:
    running.insert(100)
    running.assert_once_each()
    without_slot(running)
    kept = how(running)
    running.insert(50)
    plan = asked(running, "slot", "reset", "--recreate", "--dry-run")
    assert (plan["unread"]["events"], plan["healed"]) == (50, 50)
    assert asked(running, "slot", "reset", "--recreate", "--yes")["stored"] == 50
    assert running.stored() == 150
    streaming(running)
    running.insert(5)
    until(lambda: running.stored() == 155)
    assert_agrees(running, kept + 55)
    assert asked(running, "verify", "--repair")["repaired"] == 0
    assert running.stored() == 155


def test_events_that_were_streamed_under_a_used_id_agree(running: World) -> None:
    running.insert(100)
    running.assert_once_each()
    truncated(running)
    running.insert(30)
    until(lambda: running.stored() == 130)
    assert_agrees(running, 30)


@pytest.mark.thorough
def test_events_without_a_time_are_told_apart_by_their_type(running: World) -> None:
    insert = (
        "INSERT INTO outbox (event_type, environment, event_context, event_date_time) "
        "SELECT %s, 'test', jsonb_build_object('n', n), NULL FROM generate_series(1, %s::int) AS n"
    )
    running.conn.execute(insert, ["timeless", 20])
    running.assert_once_each()
    without_slot(running)
    truncated(running)
    running.conn.execute(insert, ["other", 10])
    assert asked(running, "slot", "reset", "--recreate", "--yes")["stored"] == 10
    streaming(running)
    assert running.stored() == 30
    # The stored rows of the truncated ids without a time may be of any age.
    report = asked(running, "verify", code=1)
    assert (report["missing"], report["extra"]) == (0, 10)
    # Whether this row was changed, or is another event, nobody can tell.
    running.conn.execute("UPDATE outbox SET event_context = '{}' WHERE id = 3")
    assert asked(running, "verify", code=1)["ids"]["differing"] == [3]
    assert asked(running, "verify", "--repair", code=1)["repaired"] == 0


@pytest.mark.thorough
def test_a_dead_letter_does_not_hide_another_event_with_its_id(running: World) -> None:
    running.conn.execute(
        "INSERT INTO outbox (event_type, environment, event_context, event_date_time) "
        "SELECT 'x', 'y', '{}', 'infinity' FROM generate_series(1, 2)"
    )
    until(lambda: running.ch("SELECT count() FROM event_log_dead_letters") == 2, what="two dead letters")
    position = asked(running, "dlq", "list")["newest"][0]["position"]
    outhaul(running, "dlq", "discard", position, "--yes")
    without_slot(running)
    truncated(running)
    running.insert(2)
    code = 1
    report = asked(running, "prune", "--older-than", "0s", "--yes", code=code)
    assert (report["removed"], report["lacking"]) == (0, 2)
    assert asked(running, "slot", "reset", "--recreate", "--yes")["stored"] == 2
    assert running.stored() == 2


def test_a_row_with_a_used_id_is_not_pruned_before_it_is_stored(running: World) -> None:
    insert = (
        "INSERT INTO outbox (event_type, environment, event_context, event_date_time) "
        "SELECT 'tested', 'test', '{}', '2026-01-01 00:00:00+00'::timestamptz + %s * interval '1 ms' "
        "FROM generate_series(1, %s::int)"
    )
    running.conn.execute(insert, [0, 20])
    running.assert_once_each()
    running.pipeline.stop("reader")
    truncated(running)
    running.conn.execute(insert, [300, 10])
    report = asked(running, "prune", "--older-than", "0s", "--yes", code=1)
    assert (report["removed"], report["lacking"]) == (0, 10)
    running.pipeline.start("reader")
    until(lambda: running.stored() == 30)
    assert asked(running, "prune", "--older-than", "0s", "--yes")["removed"] == 10


@pytest.mark.thorough
def test_times_that_clickhouse_keeps_with_fewer_digits_are_the_same_times(make_world: Callable[..., World]) -> None:
    world = make_world()
    definition = str(world.ch("SHOW CREATE TABLE event_log"))
    coarser = definition.replace("`event_date_time` DateTime64(6, 'UTC')", "`event_date_time` DateTime64(3, 'UTC')")
    world.clickhouse.command("DROP TABLE event_log")
    world.clickhouse.command(coarser)
    world.pipeline.start("worker", "reader")
    world.conn.execute(
        "INSERT INTO outbox (event_type, environment, event_context, event_date_time) "
        "SELECT 'x', 'y', '{}', at::timestamptz + n * interval '0.123456 s' "
        "FROM unnest(ARRAY['1901-01-01', '1969-12-31 23:59:58', '1970-01-01', '2026-01-01', '2299-12-31']) AS at, "
        "generate_series(1, 20) AS n"
    )
    until(lambda: world.stored() == 100)
    assert asked(world, "verify")["missing"] == 0
    assert asked(world, "prune", "--older-than", "0s", "--dry-run", code=0)["lacking"] == 0
    without_slot(world)
    truncated(world)
    world.insert(10)
    assert asked(world, "slot", "reset", "--recreate", "--yes")["stored"] == 10


@pytest.mark.thorough
def test_rows_that_share_an_id_are_not_copied_without_a_word(make_world: Callable[..., World]) -> None:
    world = make_world()
    world.conn.execute("ALTER TABLE outbox DROP CONSTRAINT outbox_pkey")
    world.pipeline.start("worker", "reader")
    insert = (
        "INSERT INTO outbox (id, event_type, environment, event_context, event_date_time) "
        "VALUES (7, 'x', 'y', '{}', now() + %s * interval '1 s')"
    )
    for seconds in (1, 2):
        world.conn.execute(insert, [seconds])
    until(lambda: world.stored() == 2)
    assert asked(world, "verify", "--deep")["repeated"] == 0
    without_slot(world)
    world.conn.execute(insert, [3])
    said = outhaul(world, "slot", "reset", "--recreate", "--yes", code=None)
    assert "whose ids other rows have, too (7)" in said
