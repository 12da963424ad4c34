"""The grid can fail: with one of the nets taken away, the fault that it is there for repeats rows.

Each is run with everything in place first, in test_traps.py.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import scenarios
from tests.faults.rig import Rig

pytestmark = pytest.mark.timeout(150)

FOLDER = str(Path(__file__).with_name("broken"))


@pytest.mark.parametrize(
    ("net", "scenario"),
    [
        ("token", scenarios.a_task_sleeps_while_its_batch_is_sent_again),
        ("fence", scenarios.a_task_sleeps_over_a_change_of_reader),
        ("question", scenarios.a_reader_dies_before_feedback),
    ],
    ids=["token", "fence", "question"],
)
def test_without_this_net_rows_are_repeated(
    make_rig: Callable[..., Rig], net: str, scenario: Callable[[Rig], None]
) -> None:
    rig = make_rig(env={"OUTHAUL_BROKEN": net, "PYTHONPATH": FOLDER})
    try:
        with pytest.raises(AssertionError, match="stored more than once"), rig.trial(writers=0):
            scenario(rig)
    finally:
        rig.down("worker", "reader")
