"""Settings -> a client for Sentry in this process, where a DSN is set.

Edge: sentry-sdk, once a process. Only what is named here is switched on: the SDK's own choice would hook itself into
every library that it knows, and send their commands, addresses and arguments. No local variables, no personal data,
and no line of the log makes an event; lines become breadcrumbs, by their names and numbers.

Source: https://docs.sentry.io/platforms/python/configuration/options/
"""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from outhaul.sink.telemetry.scrub import scrub_of
from outhaul.sink.telemetry.sentry import capture
from outhaul.sink.telemetry.sentry.redact import Redact
from outhaul.sink.telemetry.sentry.repeated_errors import Patience

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.sink.settings import Settings

_BREADCRUMBS = 30
# Names and numbers of a line; its texts may quote what was to be stored.
_SHOWN = {
    "where", "attempts", "attempt", "wait_s", "failures", "repeated", "source", "slot", "epoch", "batch", "token",
    "rows", "outcome", "dead_letters", "seconds", "in_flight", "kind", "code", "binary", "held_rows", "confirmed_lsn",
}  # fmt: skip


def configure(settings: Settings, process: str, *, slot: str = "", clock: Callable[[], float] = time.monotonic) -> None:
    """Report errors of this process (`reader`, `worker` or `watchdog`), and follow a share of its batches.

    Args:
        settings: the settings; without a DSN in them nothing happens.
        process: which one it is.
        slot: the one that the process streams from; that of the settings if empty.
        clock: for errors that repeat themselves, in seconds.
    """
    dsn = settings.sentry_dsn.get_secret_value()
    if not dsn:
        return
    import sentry_sdk
    from sentry_sdk.integrations.atexit import AtexitIntegration
    from sentry_sdk.integrations.celery import CeleryIntegration
    from sentry_sdk.integrations.excepthook import ExcepthookIntegration

    from outhaul.sink.telemetry.sentry import trace

    redact = Redact(scrub_of(settings))
    rate = settings.sentry_traces_rate
    sentry_sdk.init(
        dsn,
        release=f"outhaul@{version('outhaul')}",
        traces_sample_rate=rate or None,
        before_send=redact.event,
        before_send_transaction=redact.transaction,
        max_breadcrumbs=_BREADCRUMBS,
        send_default_pii=False,
        include_local_variables=False,
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[
            # Without its own callback it writes on standard error.
            AtexitIntegration(callback=lambda _pending, _timeout: None),
            ExcepthookIntegration(),
            # Carries the trace in the headers of messages; what tasks raise is told by them.
            CeleryIntegration(propagate_traces=True),
        ],
        auto_session_tracking=False,
        send_client_reports=False,
        enable_backpressure_handling=False,
    )
    # The global scope, since threads have no other in common.
    scope = sentry_sdk.get_global_scope()
    for name, value in (("process", process), ("source", settings.source), ("slot", slot or settings.slot)):
        scope.set_tag(f"outhaul.{name}", value)
    # The longest time between two attempts at the same batch, with some room.
    quiet_s = settings.insert_timeout_s + 2 * settings.retry_max_s
    capture.begin(process, Patience(clock, quiet_s))
    trace.begin(rate)


def breadcrumb(_logger: object, name: str, event: Any) -> Any:
    """Leave a trace of a line of the log for the next error; a processor of structlog."""
    if capture.is_on():
        import sentry_sdk

        shown = {key: value for key, value in event.items() if key in _SHOWN}
        sentry_sdk.get_global_scope().add_breadcrumb(
            category=event.get("logger", "outhaul"), level=name, message=str(event.get("event")), data=shown
        )
    return event
