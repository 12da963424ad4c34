"""Errors worth a human's time, and a sample of traces -> Sentry, where a DSN is set; nothing at all where none is.

Edge: sentry-sdk. `configure` says what is sent and what never is, `capture` which errors are told and how often,
`redact` takes contents and secrets out of them, `trace` follows one batch over all processes, `producers` leads from
there to the traces of the apps that wrote its events. The SDK takes a tenth of a second to import, so only a process
that has a DSN does.

Source: https://docs.sentry.io/platforms/python/
"""

from outhaul.sink.telemetry.sentry.capture import over, repeated, set_aside, stopped, stopping, told
from outhaul.sink.telemetry.sentry.configure import breadcrumb, configure

__all__ = ["breadcrumb", "configure", "over", "repeated", "set_aside", "stopped", "stopping", "told"]
