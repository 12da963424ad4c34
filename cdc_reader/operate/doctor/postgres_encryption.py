"""The connection to Postgres -> a finding: whether others can read it, or impersonate the server.

Pure, except that `asked` reads an open connection.

Source: https://www.postgresql.org/docs/current/libpq-ssl.html
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from outhaul.cdc_reader.operate.doctor.finding import Finding, fine, warn

if TYPE_CHECKING:
    from outhaul.cdc_reader.postgres.query import Connection

_CHECK = "encryption"
# libpq's default if neither the DSN nor PGSSLMODE sets sslmode.
_DEFAULT_MODE = "prefer"
_VERIFIED = "verify-full"
_TODO = "Write sslmode=verify-full and sslrootcert= into OUTHAUL_POSTGRES_DSN (docs/security.md)"


@dataclass(frozen=True, slots=True)
class Encryption:
    """A connection: `address` is the server's, empty for a Unix socket; `mode` is libpq's sslmode."""

    address: str
    is_encrypted: bool
    mode: str


def asked(conn: Connection) -> Encryption:
    """Read the encryption of an open connection."""
    return Encryption(
        address=conn.info.hostaddr,
        is_encrypted=conn.is_encrypted,
        mode=conn.info.get_parameters().get("sslmode", _DEFAULT_MODE),
    )


def judge(found: Encryption) -> Finding:
    """Judge a connection; one that does not leave the machine needs no encryption."""
    if not found.address or ip_address(found.address.partition("%")[0]).is_loopback:
        return fine(_CHECK, "not needed: the server is on this machine")
    if not found.is_encrypted:
        return warn(_CHECK, f"off: the network between here and {found.address} can read all events", _TODO)
    if found.mode != _VERIFIED:
        return warn(_CHECK, f"TLS, but sslmode={found.mode} does not verify the server's certificate and name", _TODO)
    return fine(_CHECK, "TLS, with a verified server certificate")
