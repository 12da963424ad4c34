"""Settings -> a client for Sentry in this process, if a DSN is set.

Edge: sentry-sdk, once in a process. Only the integrations listed here are enabled: the SDK's defaults would instrument
every library that the SDK knows, and send commands, addresses and arguments. Local variables and personal data are not
sent. Log lines are not events; they become breadcrumbs, with their names and numbers only.

Source: https://docs.sentry.io/platforms/python/configuration/options/
"""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from outhaul.sink.telemetry.scrub import scrub_of
from outhaul.sink.telemetry.sentry import capture
from outhaul.sink.telemetry.sentry.redact import Redact
from outhaul.sink.telemetry.sentry.repeated_errors import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.sink.settings import Settings

_BREADCRUMBS = 30
# Fields of a log line that a breadcrumb may contain; other fields may quote contents of events.
_SHOWN = {
    "where", "attempts", "attempt", "wait_s", "failures", "repeated", "source", "slot", "epoch", "batch", "token",
    "rows", "outcome", "dead_letters", "seconds", "in_flight", "kind", "code", "binary", "held_rows", "confirmed_lsn",
}  # fmt: skip


def configure(settings: Settings, process: str, *, slot: str = "", clock: Callable[[], float] = time.monotonic) -> None:
    """Start to report errors of this process, and to trace a share of its batches.

    Args:
        settings: the settings; without a DSN, nothing happens.
        process: `reader`, `worker`, `watchdog`, `exporter` or `flower`.
        slot: the slot that the process streams from; if empty, the slot of the settings.
        clock: monotonic clock in seconds, for repeated errors.
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
            # The default callback writes to standard error.
            AtexitIntegration(callback=lambda _pending, _timeout: None),
            ExcepthookIntegration(),
            # Sends the trace in the headers of messages. The tasks report their errors themselves.
            CeleryIntegration(propagate_traces=True),
        ],
        auto_session_tracking=False,
        send_client_reports=False,
        enable_backpressure_handling=False,
    )
    # Only the global scope is shared by all threads.
    scope = sentry_sdk.get_global_scope()
    for name, value in (("process", process), ("source", settings.source), ("slot", slot or settings.slot)):
        scope.set_tag(f"outhaul.{name}", value)
    # Longer than the longest time between two attempts at the same batch.
    quiet_s = settings.insert_timeout_s + 2 * settings.retry_max_s
    capture.begin(process, Throttle(clock, quiet_s))
    trace.begin(rate)


def breadcrumb(_logger: object, name: str, event: Any) -> Any:
    """Add a log line to the breadcrumbs of the next error; a processor of structlog."""
    if capture.is_on():
        import sentry_sdk

        shown = {key: value for key, value in event.items() if key in _SHOWN}
        sentry_sdk.get_global_scope().add_breadcrumb(
            category=event.get("logger", "outhaul"), level=name, message=str(event.get("event")), data=shown
        )
    return event
