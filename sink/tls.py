"""TLS files that a URL names -> checked; error of a TLS connection -> why TLS was refused, or None.

Pure, except that `check_files` tests whether files can be read. Clients always verify certificates and host names; no
option of a URL turns this off. A refused certificate would be refused again, so it is a fatal error. Any other failure
of a TLS connection is a network error, and is retried.

Source: https://docs.python.org/3/library/ssl.html#exceptions
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from outhaul.sink.errors import Exit, FatalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Parts of OpenSSL's error names: for refused certificates, alerts about certificates, files without a certificate, and
# servers without TLS.
_REFUSALS = (
    "CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE", "PROTOCOL_VERSION", "WRONG_VERSION", "PEM", "NO_START_LINE",
    "KEY_VALUES_MISMATCH",
)  # fmt: skip


def why_refused(error: BaseException) -> str | None:
    """Return why TLS was refused, if the error or one of its causes is a TLS refusal; else None."""
    for one in _with_causes(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"its certificate is refused: {one.verify_message}"
        if isinstance(one, ssl.SSLError) and any(part in (one.reason or "") for part in _REFUSALS):
            return f"TLS is refused: {(one.reason or '').replace('_', ' ').lower()}"
    return None


def refusal(server: str, why: str, example: str) -> FatalError:
    """Return the error for a server whose certificate the client refuses, or that refuses the client's certificate."""
    return FatalError(f"{server}: {why}", todo=f"Renew the certificate, or name the CA that signed it: {example}")


def check_files(variable: str, options: Mapping[str, str], names: tuple[str, ...]) -> None:
    """Check that this process can read the certificate and key files that a URL names.

    Args:
        variable: environment variable of the URL, for the message.
        options: the URL's options.
        names: those of the options whose value is a path.

    Raises:
        FatalError: one file cannot be read.
    """
    for name in names:
        if path := options.get(name):
            try:
                with open(path, "rb"):  # noqa: PTH123 - the message shows the path exactly as the user wrote it
                    pass
            except OSError as error:
                raise FatalError(
                    f"{variable}: {name}={path} cannot be read ({error.strerror})",
                    todo="Name a PEM file that this process may read",
                    exit_code=Exit.SETTINGS,
                ) from None


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            yield one
            # urllib3 keeps the cause in its arguments or as the reason of its last attempt.
            waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
