"""Errors that an operator should see, and a sample of traces -> Sentry, if a DSN is set; without a DSN, nothing.

Edge: sentry-sdk. `configure` sets what is sent and what is never sent. `capture` decides which errors are reported, and
`repeated_errors` how often. `redact` removes contents and secrets. `trace` follows one batch over all processes, and
`producer_traces` links it to the traces of the apps that wrote its events. The import of the SDK takes a tenth of a
second, so only a process with a DSN imports it.

Source: https://docs.sentry.io/platforms/python/
"""

from outhaul.sink.telemetry.sentry.capture import (
    note_retry,
    recovered,
    report,
    report_now,
    report_set_aside,
    reporting_exit,
)
from outhaul.sink.telemetry.sentry.configure import breadcrumb, configure

__all__ = [
    "breadcrumb",
    "configure",
    "note_retry",
    "recovered",
    "report",
    "report_now",
    "report_set_aside",
    "reporting_exit",
]
