"""Settings -> errors go to Sentry, where a DSN is set.

Edge: sentry-sdk, once a process. Neither local variables nor personal data are sent: both could hold events.

Source: https://docs.sentry.io/platforms/python/configuration/options/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sentry_sdk

if TYPE_CHECKING:
    from sink.settings import Settings


def configure(settings: Settings, process: str) -> None:
    """Report errors of this process (`reader` or `worker`), tagged with its pipeline; do nothing without a DSN."""
    dsn = settings.sentry_dsn.get_secret_value()
    if not dsn:
        return
    sentry_sdk.init(dsn, send_default_pii=False, include_local_variables=False)
    sentry_sdk.set_tags({"outhaul.process": process, "outhaul.source": settings.source, "outhaul.slot": settings.slot})
