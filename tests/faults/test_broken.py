"""The grid can fail: with one of the nets taken away, the fault that it is there for repeats rows.

Inserts of a size that a test can afford are over in milliseconds, and two of them hardly ever overlap; so where it is
overlapping that a net is there for, inserts are slowed down, both with the net and without.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults import scenarios

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.rig import Rig

pytestmark = pytest.mark.timeout(150)

FOLDER = str(Path(__file__).with_name("broken"))

NETS = {
    "token": (scenarios.two_sendings_of_a_batch_insert_at_once, "speed"),
    "fence": (scenarios.two_readers_batches_insert_at_once, "speed"),
    "question": (scenarios.a_reader_dies_before_feedback, ""),
}


def _param(net: str, *values: object) -> Any:
    """Make a test's parameters; `make test` takes one of the nets away, `make test-all` each."""
    return pytest.param(*values, id=net)


def broken(make_rig: Callable[..., Rig], nets: str) -> Rig:
    return make_rig(env={"OUTHAUL_TEST_BROKEN": nets, "PYTHONPATH": FOLDER})


@pytest.mark.thorough
@pytest.mark.parametrize(("scenario", "slow"), [_param(net, *how) for net, how in NETS.items()])
def test_with_every_net_they_are_not(make_rig: Callable[..., Rig], scenario: Callable[[Rig], None], slow: str) -> None:
    rig = broken(make_rig, slow)
    try:
        with rig.trial(writers=0):
            scenario(rig)
    finally:
        rig.down("worker", "reader")


@pytest.mark.thorough
@pytest.mark.parametrize(("net", "scenario", "slow"), [_param(net, net, *how) for net, how in NETS.items()])
def test_without_this_net_rows_are_repeated(
    make_rig: Callable[..., Rig], net: str, scenario: Callable[[Rig], None], slow: str
) -> None:
    rig = broken(make_rig, f"{slow} {net}")
    try:
        with pytest.raises(AssertionError, match="stored more than once"), rig.trial(writers=0):
            scenario(rig)
    finally:
        rig.down("worker", "reader")
