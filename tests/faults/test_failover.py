"""A primary dies under load, its standby is promoted: what the reader does by itself, and what it leaves to us."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest

from outhaul.sink.errors import Exit
from tests.acceptance.commands import asked, outhaul
from tests.acceptance.load import wait_for_more, writers
from tests.conftest import until
from tests.postgres_pair import Pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import World

# A standby keeps slots in step since this version.
pytestmark = pytest.mark.postgres(17)


@contextmanager
def paired(
    make_world: Callable[..., World], folder: Path, *, waits_for_standby: bool = True
) -> Iterator[tuple[World, Pair]]:
    """Run a pipeline on a pair of servers, and end both."""
    pair = Pair(folder, waits_for_standby=waits_for_standby)
    try:
        pair.start()
        world = make_world(postgres_dsn=pair.dsn)
        world.pipeline.start("worker", "reader")
        until(lambda: (state := world.reader_state()) and state.phase == "streaming", what="the reader streams")
        pair.wait_for_slot(world.settings.slot)
        yield world, pair
    finally:
        pair.close()


def back(world: World) -> None:
    """Connect to the current primary."""
    world.conn.close()
    world.conn = psycopg.connect(world.dsn, autocommit=True)


@pytest.mark.thorough
def test_a_reader_follows_a_promoted_standby_by_itself_where_its_slot_was_synchronised(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    with paired(make_world, tmp_path) as (world, pair):
        said = outhaul(world, "reader", code=Exit.POSTGRES_UNREACHABLE, OUTHAUL_POSTGRES_DSN=pair.dsn_of(1))
        assert "is a standby, but outhaul writes its marks to the primary" in said
        with writers(world, interrupted=True):
            until(lambda: world.stored() > 500)
            pair.kill_primary()
            begun_at = time.monotonic()
        pair.promote()
        promoted_at = time.monotonic()
        back(world)
        with writers(world):
            wait_for_more(world)
            print(
                f"stored again {time.monotonic() - begun_at:.1f} s after the primary died, "
                f"{time.monotonic() - promoted_at:.1f} s after the promotion"
            )
            until(lambda: world.stored() > 1000)
        world.assert_once_each()
        assert "followed_to_new_timeline" in world.pipeline.log("reader")
        report = asked(world, "verify", "--deep")
        assert [report[kind] for kind in ("missing", "extra", "differing", "repeated")] == [0, 0, 0, 0]


@pytest.mark.thorough
def test_rows_that_only_the_old_primary_had_stop_the_reader(make_world: Callable[..., World], tmp_path: Path) -> None:
    """Without synchronized_standby_slots, ClickHouse may be ahead of the standby."""
    with paired(make_world, tmp_path, waits_for_standby=False) as (world, pair):
        world.insert(10)
        world.assert_once_each()
        pair.wait_for_rows(10)
        pair.disconnect()
        world.insert(20)
        world.assert_once_each()
        pair.kill_primary()
        pair.promote()
        back(world)
        world.insert(5)
        assert world.pipeline.wait("reader", 60) == Exit.OTHER_HISTORY
        said = world.pipeline.log("reader")
        assert "ClickHouse has 20 events that the old primary wrote after" in said
        assert "outhaul slot reset --recreate" in said
        asked(world, "slot", "reset", "--recreate", "--yes")
        world.pipeline.start("reader")
        world.insert(5)
        until(lambda: world.stored() == 10 + 20 + 5 + 5)
        report = asked(world, "verify", code=1)
        assert report["missing"] == 0
        assert report["extra"] + report["differing"] >= 15
