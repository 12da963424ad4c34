"""OUTHAUL_REDIS_URL -> what the payloads' connections and the broker's are made with: the same TLS for both.

Pure, but for a look whether the files that the URL names can be read. redis-py reads `ssl_*` options out of a URL, and
verifies by them; kombu goes by the name of its own transport, and would connect without TLS where another is named, or
without verifying.

Source: https://redis.readthedocs.io/en/stable/connections.html#redis.SSLConnection
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from sink import tls
from sink.errors import Exit, FatalError

VARIABLE = "OUTHAUL_REDIS_URL"
EXAMPLE = f"{VARIABLE}=rediss://...?ssl_ca_certs=/path/to/ca.pem"

_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OPTIONS = {*_FILES, "ssl_ca_path", "ssl_keyfile_password", "ssl_password"}
# What says less than we do anyway.
_SAID = {"ssl_cert_reqs": "required", "ssl_check_hostname": "true"}


def check(url: str) -> None:
    """Check the TLS options of the URL.

    Raises:
        FatalError: one is unknown, would verify less, or names a file that cannot be read.
    """
    scheme, options = _options(url)
    if options and scheme != "rediss":
        raise FatalError(
            f"{VARIABLE} has TLS options, and no TLS: its scheme is {scheme}",
            todo="Write rediss://",
            exit_code=Exit.SETTINGS,
        )
    for name, value in options.items():
        if name in _SAID and value.lower() not in {_SAID[name], f"cert_{_SAID[name]}"}:
            raise FatalError(
                f"{VARIABLE}: {name}={value} would trust whoever answers",
                todo=f"Leave it out, and name the CA: {EXAMPLE}",
                exit_code=Exit.SETTINGS,
            )
        if name not in _OPTIONS and name not in _SAID:
            raise FatalError(
                f"{VARIABLE}: {name} is no option of ours",
                todo=f"There are {', '.join(sorted(_OPTIONS))}",
                exit_code=Exit.SETTINGS,
            )
    tls.check_files(VARIABLE, options, _FILES)


def client_options(url: str) -> dict[str, Any]:
    """Return the TLS arguments of redis-py for this URL; none where it is without TLS."""
    scheme, options = _options(url)
    if scheme != "rediss":
        return {}
    named = {name: value for name, value in options.items() if name in _OPTIONS}
    return named | {"ssl_cert_reqs": "required", "ssl_check_hostname": True}


def broker_url(url: str) -> str:
    """Return the URL for Celery: without the TLS options, which are said beside it."""
    parts = urlsplit(url)
    rest = [(name, value) for name, value in parse_qsl(parts.query) if not name.startswith("ssl_")]
    return parts._replace(query=urlencode(rest)).geturl()


def _options(url: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(url)
    return parts.scheme, {name: value for name, value in parse_qsl(parts.query) if name.startswith("ssl_")}
