"""Each alert fires in a real Alertmanager while a real pipeline is broken for it, and clears when it is mended."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.breakages import TROUBLES
from tests.acceptance.breakages.processes import kill
from tests.acceptance.breakages.table import Patient, between_proxies
from tests.alerting import in_a_hurry, watching
from tests.prometheus import alerts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import World

# Those of the test that is not left to `make long`.
DEFAULT = ("OuthaulWorkersGone", "OuthaulDeadLetters")
# Alerts that nothing can be broken for here, each with the reason; their cases are in deploy/prometheus/tests.
NEVER_HERE: dict[str, str] = {}

# The pipeline waits less, as the minutes are shorter: between attempts, and for Postgres, which it asks for a sign of
# life after half of its time.
HURRY = {"retry_max_s": 0.5, "receive_timeout_s": 3.0}


@pytest.fixture
def make_patient(make_world: Callable[..., World]) -> Iterator[Callable[..., Patient]]:
    """Run pipelines with their exporters, through which some events have gone."""
    with ExitStack() as over:

        def make(**settings: object) -> Patient:
            return over.enter_context(between_proxies(make_world(**settings)))

        yield make


def poison(patient: Patient) -> None:
    # The alert is about new dead letters, so it clears by itself.
    patient.world.conn.execute(
        "INSERT INTO outbox (event_type, event_date_time, environment, event_context) "
        "VALUES ('tested', 'infinity', 'test', '{}')"
    )


@pytest.mark.thorough
def test_workers_gone_and_dead_letters_fire_and_clear(make_patient: Callable[..., Patient], tmp_path: Path) -> None:
    patient = make_patient()
    with watching(patient.pages.ports, patient.world.settings.source, tmp_path) as watch:
        mend = kill(patient, "worker")
        watch.fires("OuthaulWorkersGone")
        mend()
        watch.clears("OuthaulWorkersGone")
        poison(patient)
        watch.fires("OuthaulDeadLetters")
        watch.clears("OuthaulDeadLetters")
    patient.world.assert_once_each(dead=1)


@pytest.mark.thorough
@pytest.mark.parametrize("name", TROUBLES)
def test_an_alert_fires_while_the_pipeline_is_broken_for_it_and_clears(
    make_patient: Callable[..., Patient], tmp_path: Path, name: str
) -> None:
    trouble = TROUBLES[name]
    patient = make_patient(**{**HURRY, **trouble.settings})
    with watching(
        patient.pages.ports,
        patient.world.settings.source,
        tmp_path,
        minute_s=trouble.minute_s,
        sizes=trouble.sizes,
    ) as watch:
        assert not watch.firing() & {*trouble.fires, *trouble.quiet}
        mend = trouble.act(patient)
        watch.fires(*trouble.fires)
        watch.mutes(*trouble.mutes)
        assert not watch.firing() & set(trouble.quiet)
        mend()
        watch.clears(*trouble.fires)
    patient.world.assert_once_each()


def test_every_alert_has_its_trouble() -> None:
    broken = {alert for trouble in TROUBLES.values() for alert in trouble.fires}
    named = {alert for trouble in TROUBLES.values() for alert in (*trouble.mutes, *trouble.quiet)}
    assert {*broken, *DEFAULT, *NEVER_HERE} == set(alerts())
    assert not broken & NEVER_HERE.keys()
    assert named <= set(alerts())
    assert all(set(trouble.mutes) < set(trouble.fires) for trouble in TROUBLES.values())


def test_only_times_and_named_sizes_are_other_in_a_hurry() -> None:
    text = "expr: increase(x[15m] offset 1h) > 15 * 60 and y > 10 * 2^30\nfor: 0m\nfor: 4h\nz[30s]"
    assert in_a_hurry(text) == ("expr: increase(x[15s] offset 60s) > 15 and y > 10 * 2^30\nfor: 0s\nfor: 240s\nz[3s]")
    assert in_a_hurry(text, minute_s=0.1, sizes={"10 * 2^30": "7"}) == (
        "expr: increase(x[3s] offset 6s) > 2 and y > 7\nfor: 0s\nfor: 24s\nz[3s]"
    )
    with pytest.raises(ValueError, match="no rule"):
        in_a_hurry(text, sizes={"11 * 2^30": "7"})
