"""URL of a server -> what its TLS connections are made with; an error of theirs -> a refusal, where it is one.

Pure, but for a look whether the files that a URL names can be read. Certificates are always verified, and so are names:
a URL has no word for less. A certificate that is refused will be refused again, so it stops whoever met it; whatever
else breaks a TLS connection is the network's, and is tried again.

Source: https://docs.python.org/3/library/ssl.html#exceptions
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from outhaul.sink.errors import Exit, FatalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# In OpenSSL's names of errors: of certificates, alerts about them, files that hold none, and a server without TLS.
_REFUSALS = (
    "CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE", "PROTOCOL_VERSION", "WRONG_VERSION", "PEM", "NO_START_LINE",
    "KEY_VALUES_MISMATCH",
)  # fmt: skip


def why_refused(error: BaseException) -> str | None:
    """Return why TLS was refused, if that is what the error, or one that it came of, says."""
    for one in _came_of(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"its certificate is refused: {one.verify_message}"
        if isinstance(one, ssl.SSLError) and any(word in (one.reason or "") for word in _REFUSALS):
            return f"TLS is refused: {(one.reason or '').replace('_', ' ').lower()}"
    return None


def refusal(server: str, why: str, example: str) -> FatalError:
    """Return the error for a server whose certificate, or which ours, is not accepted."""
    return FatalError(f"{server}: {why}", todo=f"Renew the certificate, or name the CA that signed it: {example}")


def check_files(variable: str, options: Mapping[str, str], names: tuple[str, ...]) -> None:
    """Check that the files of certificates and keys that a URL names can be read.

    Raises:
        FatalError: one cannot.
    """
    for name in names:
        if path := options.get(name):
            try:
                with open(path, "rb"):  # noqa: PTH123 - the path is the user's own text, and stays it in the message
                    pass
            except OSError as error:
                raise FatalError(
                    f"{variable}: {name}={path} cannot be read ({error.strerror})",
                    todo="Name a PEM file that this process may read",
                    exit_code=Exit.SETTINGS,
                ) from None


def _came_of(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            yield one
            # urllib3 keeps the cause in its arguments or as the reason of its last attempt.
            waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
