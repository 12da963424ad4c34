"""A DSN -> the parameters of a connection, and a connection for replication; a failed one -> a PipelineError.

Edge: libpq. libpq keeps no SQLSTATE of a connection that the server refused, and the text of the error is in the
server's language. If its verbosity is set before the server answers, libpq writes the code in place of the text. So
this file connects a second time. psycopg has no method for that: libpq's function is called directly.

Source: https://www.postgresql.org/docs/current/libpq-control.html#LIBPQ-PQSETERRORVERBOSITY
"""

from __future__ import annotations

import ctypes
import os
import re
import select
import sys
import time
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from outhaul.cdc_reader.postgres import pooler, session_settings
from outhaul.cdc_reader.postgres.errors import error_of, result_error
from outhaul.sink.errors import Exit, FatalError, PipelineError, TransientError

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

# With these, the kernel notices within about half a minute that the peer is gone, also while nothing is read.
_DEFAULTS: dict[str, str | int] = {
    "application_name": "outhaul",
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}

# libpq quotes the part of a DSN that it cannot read, which may be the password.
_QUOTED = re.compile(r'"[^"]*"')
_VERBOSITY_SQLSTATE = 3
# Timeout of the second connection, in seconds, if the DSN's connect_timeout is 0 (no limit).
_WAIT_S = 10
# How libpq prints an error of the server in any language: the severity, two spaces, then the text or the code.
_FROM_SERVER = re.compile(r": {2}\S")
_CODE = re.compile(r": {2}([0-9A-Z]{5})$", re.MULTILINE)

# Resources, operator intervention (starting up, shutting down), system errors.
_NOT_NOW = {"53", "57", "58"}
_PROTOCOL_VIOLATION, _NO_PRIVILEGE, _LOGIN = "08P01", "42501", "28000"
# What pg_stat_activity calls the process of a connection that is not for replication.
_ORDINARY = b"client backend"


def conninfo(dsn: str, **extra: str) -> str:
    """Return the DSN with outhaul's defaults for missing parameters, and with `extra` in place of its own.

    Raises:
        PipelineError: the DSN is malformed.
    """
    # Outhaul chooses itself which of its connections speak the replication protocol.
    given = {name: value for name, value in parameters(dsn).items() if name != "replication"}
    return make_conninfo("", **{**_DEFAULTS, **given, **extra, "client_encoding": "UTF8"})


def parameters(dsn: str) -> dict[str, str]:
    """Return the parameters of a DSN.

    Raises:
        PipelineError: the DSN is malformed.
    """
    try:
        return {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    except psycopg.Error as error:
        raise FatalError(
            f"the DSN is malformed: {_QUOTED.sub('…', str(error).strip())}",
            todo="Correct OUTHAUL_POSTGRES_DSN: postgresql://user:password@host:5432/database, with %-encoded special "
            "characters",
            exit_code=Exit.SETTINGS,
        ) from error


def variables_in_effect(dsn: str) -> tuple[str, ...]:
    """Return the environment variables from which libpq takes what the DSN and outhaul's defaults leave open.

    Raises:
        PipelineError: the DSN is malformed.
    """
    given = parameters(conninfo(dsn))
    known = {one.envvar.decode(): one.keyword.decode() for one in pq.Conninfo.get_defaults() if one.envvar}
    return tuple(sorted(name for name, keyword in known.items() if os.environ.get(name) and keyword not in given))


def connect_replication(dsn: str, **extra: str) -> PGconn:
    """Connect for the replication protocol; `extra` are parameters of `conninfo`.

    Raises:
        PipelineError: no answer, or the login is refused.
    """
    address = conninfo(dsn, replication="database", **extra)
    pgconn = pq.PGconn.connect(address.encode())
    try:
        if pgconn.status != pq.ConnStatus.OK:
            raise login_error(address, pgconn.get_error_message())
        _begin(pgconn)
    except PipelineError:
        pgconn.finish()
        raise
    return pgconn


def _begin(pgconn: PGconn) -> None:
    """Give the session outhaul's settings; check that it can stream."""
    try:
        result = pgconn.exec_(session_settings.statement(pgconn.server_version).encode())
    except psycopg.Error as error:
        raise error_of(None, str(error)) from error
    if result.status != pq.ExecStatus.TUPLES_OK:
        raise result_error(result)
    if result.get_value(0, 1) == _ORDINARY:
        raise pooler.refusal("it opens an ordinary session where outhaul asks for one for replication")


def login_error(address: str, text: str) -> PipelineError:
    """Return the error for a failed connection.

    Args:
        address: the parameters, as `conninfo` returns them.
        text: the error text of libpq.
    """
    if not _FROM_SERVER.search(text):
        return error_of(None, text)
    state = _ask_for_code(address)
    if state is None:
        return TransientError(f"Postgres refused the connection: {text}", exit_code=Exit.POSTGRES_UNREACHABLE)
    if state == _PROTOCOL_VIOLATION:
        # Postgres itself knows all parameters that outhaul sends.
        return pooler.refusal(f"it does not accept the connection ({' '.join(text.split())})")
    is_known = state[:2] in _NOT_NOW or state == _NO_PRIVILEGE
    return error_of(state if is_known else _LOGIN, text)


def _ask_for_code(address: str) -> str | None:
    """Connect again; return the code of the refusal, or None if this connection is not refused."""
    pgconn = pq.PGconn.connect_start(address.encode())
    deadline = time.monotonic() + (int(parameters(address)["connect_timeout"]) or _WAIT_S)
    try:
        pointer = ctypes.c_void_p(pgconn.pgconn_ptr)  # type: ignore[attr-defined]
        _libpq().PQsetErrorVerbosity(pointer, _VERBOSITY_SQLSTATE)
        while (state := pgconn.connect_poll()) in {pq.PollingStatus.READING, pq.PollingStatus.WRITING}:
            poll = select.poll()
            poll.register(pgconn.socket, select.POLLIN if state == pq.PollingStatus.READING else select.POLLOUT)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return None
        codes = _CODE.findall(pgconn.get_error_message())
        return codes[-1] if codes else None
    finally:
        pgconn.finish()


def _libpq() -> ctypes.CDLL:
    """Return the libpq that psycopg uses."""
    if pq.__impl__ == "python":
        found: ctypes.CDLL = sys.modules["psycopg.pq._pq_ctypes"].pq
        return found
    # A symbol is also searched in the libraries that psycopg's own library is linked with.
    return ctypes.CDLL(sys.modules[pq.PGconn.__module__].__file__)
