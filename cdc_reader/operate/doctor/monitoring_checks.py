"""Settings -> findings: whether Sentry and the metrics port can be reached, if they are set.

Edge: opens a connection to each and closes it; it sends nothing to Sentry.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

from sentry_sdk.utils import BadDsn, Dsn

from outhaul.cdc_reader.operate.doctor.finding import Finding, fine, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.sink.settings import Settings

_CONNECT_S = 3.0
_LOOPBACK = "127.0.0.1"
_ANY = {"", "0.0.0.0"}  # noqa: S104 - compared with a setting, not listened on


def ask(settings: Settings) -> tuple[Finding, ...]:
    """Try what is set; the pipeline works without both, so a failure is only a warning."""
    return tuple(_tried(settings))


def _tried(settings: Settings) -> Iterator[Finding]:
    dsn = settings.sentry_dsn.get_secret_value()
    if dsn:
        yield sentry(dsn)
    if settings.metrics_port:
        host = _LOOPBACK if settings.metrics_host in _ANY else settings.metrics_host
        yield metrics(settings.metrics_port, host)


def sentry(dsn: str) -> Finding:
    """Connect to the host of a DSN; no message contains its key."""
    try:
        found = Dsn(dsn)
    except BadDsn:
        return warn("Sentry", "the DSN is malformed", "Set OUTHAUL_SENTRY_DSN=https://key@host/project")
    host, port = found.host, found.port
    try:
        socket.create_connection((host, port), _CONNECT_S).close()
    except OSError as error:
        return warn("Sentry", f"{host}:{port} does not answer ({error})", "Check OUTHAUL_SENTRY_DSN and the firewall")
    return fine("Sentry", f"{host}:{port} answers")


def metrics(port: int, host: str = _LOOPBACK) -> Finding:
    """Ask the metrics port of a process on this machine that has these settings."""
    address = f"http://{host}:{port}/metrics"
    try:
        with urlopen(address, timeout=_CONNECT_S) as answer:
            if b"outhaul_" in answer.read():
                return fine("metrics", f"{address} answers")
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        return warn("metrics", f"{address} does not answer ({reason})", "outhaul reader  # or on another machine?")
    return warn("metrics", f"another program answers at {address}", "Set another OUTHAUL_METRICS_PORT")
