"""What supervisors, terminals, clocks and small containers do to a process: it drains, works, or names the reason."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from outhaul.sink.errors import Exit
from tests.acceptance.commands import asked
from tests.conftest import World, until
from tests.launch import OUTHAUL
from tests.middle_boxes import program

if TYPE_CHECKING:
    from collections.abc import Callable

FAKED = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_RESET": "1"}


def streams(world: World) -> None:
    until(lambda: (state := world.reader_state()) and state.phase == "streaming", what="the reader streams")


def test_a_hangup_drains_reader_and_worker(make_world: Callable[..., World]) -> None:
    world = make_world(pool=True)
    # The tests may run under nohup.
    world.pipeline.start("worker", "reader", via=["env", "--default-signal=HUP"])
    streams(world)
    world.insert(3)
    os.kill(world.pipeline.pid("reader"), signal.SIGHUP)
    assert world.pipeline.wait("reader", 60) == 0
    assert '"draining"' in world.pipeline.log("reader")
    os.kill(world.pipeline.pid("worker"), signal.SIGHUP)
    assert world.pipeline.wait("worker", 60) == 0
    world.pipeline.start("worker", "reader")
    world.assert_once_each()


def test_a_hangup_is_ignored_under_nohup(world: World) -> None:
    world.pipeline.start("reader", via=["env", "--ignore-signal=HUP"])
    streams(world)
    os.kill(world.pipeline.pid("reader"), signal.SIGHUP)
    world.insert(3)
    world.pipeline.start("worker")
    world.assert_once_each()
    world.pipeline.check()


@pytest.mark.parametrize("closed", ["2>&-", pytest.param("<&- >&- 2>&-", marks=pytest.mark.thorough)])
def test_processes_work_with_closed_streams(make_world: Callable[..., World], closed: str) -> None:
    world = make_world(pool=True)
    via = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    world.pipeline.start("worker", "reader", via=via)
    world.insert(3)
    world.assert_once_each()
    done = subprocess.run([*via, OUTHAUL, "status"], env={**os.environ, **world.env}, timeout=90, check=False)
    assert done.returncode == 0
    world.pipeline.check()


@pytest.mark.parametrize("ahead", ["+2d", pytest.param("-2d", marks=pytest.mark.thorough)])
def test_a_clock_that_is_two_days_off_is_named_and_nothing_depends_on_it(world: World, ahead: str) -> None:
    world.pipeline.start("worker")
    world.pipeline.start("reader", via=[program("faketime"), "-f", ahead], **FAKED)
    streams(world)
    world.insert(3)
    world.assert_once_each()
    wrong = asked(world, "status", code=1)["wrong"]
    where = "ahead of" if ahead == "+2d" else "behind"
    assert len(wrong) == 1, wrong
    assert f"the clock of the reader is off by 2 d: it is {where} that of Postgres" in wrong[0]


def shm(options: str) -> list[str]:
    """Return a command that runs another one with a /dev/shm of its own."""
    command = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o {options} shm /dev/shm && exec "$@"', "sh"]
    if os.geteuid() or not shutil.which("unshare") or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("only root can mount a file system")
    return command


def test_a_worker_without_shared_memory_names_the_path_and_works_without_a_pool(world: World) -> None:
    via, env = shm("ro"), {**os.environ, **world.pipeline._env}
    done = subprocess.run([*via, OUTHAUL, "worker"], env=env, timeout=90, check=False, capture_output=True, text=True)
    assert done.returncode == Exit.SETTINGS
    assert "Celery's pool keeps semaphores in /dev/shm, but cannot make one there" in done.stderr
    assert "--pool solo" in done.stderr
    world.pipeline.start("worker", via=via, arguments=["--pool", "solo"])
    world.pipeline.start("reader")
    world.insert(3)
    world.assert_once_each()


@pytest.mark.thorough
def test_a_full_shared_memory_is_named(world: World) -> None:
    via, env = shm("size=4k"), {**os.environ, **world.pipeline._env}
    fill = ["sh", "-c", 'head -c 4096 /dev/zero > /dev/shm/full; exec "$@"', "sh"]
    command = [*via, *fill, OUTHAUL, "worker"]
    done = subprocess.run(command, env=env, timeout=90, check=False, capture_output=True, text=True)
    assert done.returncode == Exit.SETTINGS
    assert "No space left on device" in done.stderr
