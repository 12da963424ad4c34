"""Task running -> a key in Redis that says so, by worker; what the watchdog looks for.

Edge: Celery's signals, in the process that runs the task. The key is renewed as long as the task runs and expires soon
afterwards, so a worker without one has begun nothing lately.

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
# The task's own first words to Redis go before, in seconds.
_FIRST_S = 0.02

_over: dict[str, threading.Event] = {}
_payloads: dict[int, Payloads] = {}


@task_prerun.connect(weak=False)  # type: ignore[untyped-decorator] # celery has no types
def _begin(task_id: str, task: Any, **_: object) -> None:
    app: SinkApp = task.app
    over = _over[task_id] = threading.Event()
    # Also for a task that takes no time: the watchdog asks whether any task begins at all.
    keys = [pulse_key(app.settings.source, name) for name in (str(task.request.hostname), ANY_WORKER)]
    if id(app) not in _payloads:
        _payloads[id(app)] = Payloads(app.settings.redis_url.get_secret_value(), app.settings.source)
    threading.Thread(target=_renew, args=(_payloads[id(app)], keys, over), name="outhaul-pulse", daemon=True).start()


@task_postrun.connect(weak=False)  # type: ignore[untyped-decorator]
def _end(task_id: str, **_: object) -> None:
    if over := _over.pop(task_id, None):
        over.set()


def _renew(payloads: Payloads, keys: list[str], over: threading.Event) -> None:
    is_over = over.wait(_FIRST_S)
    while True:
        # A Redis that is away has no queue either, so the watchdog has nothing to compare.
        with suppress(PipelineError):
            for key in keys:
                payloads.set(key, "1", ttl_s=PULSE_S)
        if is_over or over.wait(_RENEW_S):
            return
