"""The connection to Postgres -> finding: whether others can read along, or answer in its place.

Pure, but for `asked`, which asks a connection that is open.

Source: https://www.postgresql.org/docs/current/libpq-ssl.html
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from outhaul.cdc_reader.operate.doctor.finding import Finding, fine, warn

if TYPE_CHECKING:
    import psycopg

_CHECK = "encryption"
# libpq's own, where neither the DSN nor PGSSLMODE says anything.
_DEFAULT_MODE = "prefer"
_VERIFIED = "verify-full"
_TODO = "Write sslmode=verify-full and sslrootcert= into OUTHAUL_POSTGRES_DSN (docs/security.md)"


@dataclass(frozen=True, slots=True)
class Encryption:
    """How a connection goes: `address` is the server's, empty for a socket; `mode` is libpq's sslmode."""

    address: str
    is_encrypted: bool
    mode: str


def asked(conn: psycopg.Connection[Any]) -> Encryption:
    """Look at an open connection."""
    return Encryption(
        address=conn.info.hostaddr,
        is_encrypted=bool(conn.pgconn.ssl_in_use),
        mode=conn.info.get_parameters().get("sslmode", _DEFAULT_MODE),
    )


def judge(found: Encryption) -> Finding:
    """Judge it; what does not leave the machine needs none."""
    if not found.address or ip_address(found.address.partition("%")[0]).is_loopback:
        return fine(_CHECK, "none needed: the server is on this machine")
    if not found.is_encrypted:
        return warn(_CHECK, f"none on the way to {found.address}: whoever is in between reads all events", _TODO)
    if found.mode != _VERIFIED:
        return warn(_CHECK, f"TLS, but sslmode={found.mode} does not check whom it talks to", _TODO)
    return fine(_CHECK, "TLS, and the server's certificate is checked")
