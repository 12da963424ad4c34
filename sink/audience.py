"""Celery's `enable_events` -> task events for as long as somebody goes on asking for them.

Edge: a step of Celery's worker, and its answer to a remote command. Flower asks every five seconds as long as it runs;
Celery by itself would go on telling nobody after Flower has gone. Workers that were started with `-E` always tell.

Source: https://docs.celeryq.dev/en/stable/userguide/extending.html#blueprints
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from celery import bootsteps
from celery.signals import celeryd_init
from celery.worker.consumer.events import Events
from celery.worker.control import control_command
from celery.worker.control import enable_events as enable

if TYPE_CHECKING:
    from collections.abc import Callable

# Flower asks six times in it; a listener of another kind has so long between two commands, in seconds.
LEASE_S = 30.0
_LOOK_S = 5.0
_TASK_EVENTS = "task"


class Audience(bootsteps.StartStopStep):  # type: ignore[misc] # celery has no types
    """Looks now and then whether anybody still asks."""

    requires = (Events,)

    def __init__(self, consumer: Any, clock: Callable[[], float] = time.monotonic, **options: Any) -> None:
        """Nobody has asked yet; Celery hands over its own options."""
        super().__init__(consumer, **options)
        self._clock = clock
        self._asked_at = clock()
        self._timer: Any = None
        consumer.audience = self

    def start(self, consumer: Any) -> None:
        """Begin to look; again after each loss of the connection."""
        self.asked()
        self._timer = consumer.timer.call_repeatedly(_LOOK_S, self.look, (consumer,))

    def stop(self, consumer: Any) -> None:  # noqa: ARG002 - Celery's shape
        """End the looking."""
        if self._timer is not None:
            self._timer.cancel()

    def asked(self) -> None:
        """Note that somebody wants events."""
        self._asked_at = self._clock()

    def look(self, consumer: Any) -> None:
        """Let the events be when nobody has asked for some time."""
        # With `-E` the set is empty, which means all groups.
        if self._clock() - self._asked_at > LEASE_S and consumer.event_dispatcher is not None:
            consumer.event_dispatcher.groups.discard(_TASK_EVENTS)


@celeryd_init.connect  # type: ignore[untyped-decorator]
def _join(instance: Any, **_: object) -> None:
    instance.app.steps["consumer"].add(Audience)


@control_command(name="enable_events")  # type: ignore[untyped-decorator]
def _enable_events(state: Any) -> Any:
    state.consumer.audience.asked()
    return enable(state)
