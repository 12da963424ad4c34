"""Running task -> a key in Redis with its worker's name: the pulse, which the watchdog reads.

Edge: Celery's signals and Redis, in the process that runs the task. A thread renews the key while the task runs, and
the key expires soon after the task. So a worker without a pulse key has begun no task recently.

Source: https://docs.celeryq.dev/en/stable/userguide/signals.html
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from celery.signals import task_postrun, task_prerun

from outhaul.sink.errors import PipelineError
from outhaul.sink.redis.payloads import PULSE_S, Payloads
from outhaul.sink.redis_keys import ANY_WORKER, pulse_key

if TYPE_CHECKING:
    from outhaul.sink.app import SinkApp

_RENEW_S = 3.0
# The first pulse comes after this time, in seconds, so that the task's own first command to Redis comes before it.
_FIRST_S = 0.02

_ended: dict[str, threading.Event] = {}
_payloads: dict[int, Payloads] = {}


@task_prerun.connect(weak=False)  # type: ignore[untyped-decorator] # celery has no types
def _begin(task_id: str, task: Any, **_: object) -> None:
    app: SinkApp = task.app
    ended = _ended[task_id] = threading.Event()
    # A very short task has a pulse, too: the watchdog checks whether the worker begins any task.
    keys = [pulse_key(app.settings.source, name) for name in (str(task.request.hostname), ANY_WORKER)]
    if id(app) not in _payloads:
        _payloads[id(app)] = Payloads.of(app.settings)
    threading.Thread(target=_renew, args=(_payloads[id(app)], keys, ended), name="outhaul-pulse", daemon=True).start()


@task_postrun.connect(weak=False)  # type: ignore[untyped-decorator]
def _end(task_id: str, **_: object) -> None:
    if ended := _ended.pop(task_id, None):
        ended.set()


def _renew(payloads: Payloads, keys: list[str], ended: threading.Event) -> None:
    has_ended = ended.wait(_FIRST_S)
    while True:
        # If Redis does not answer, the watchdog cannot read the queue either, and does not judge the worker.
        with suppress(PipelineError):
            for key in keys:
                payloads.set(key, "1", ttl_s=PULSE_S)
        if has_ended or ended.wait(_RENEW_S):
            return
