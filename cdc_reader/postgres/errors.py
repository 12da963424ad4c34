"""SQLSTATE of Postgres -> the kind of the error, and what the operator can do.

Pure. As for ClickHouse, an unclassified code is fatal, and a missing answer is transient.

Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from psycopg.pq import DiagnosticField

from outhaul.sink import tls
from outhaul.sink.errors import Exit, FatalError, PipelineError, TransientError

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

RECREATE = "Create it again: `outhaul slot reset --recreate` copies the skipped events from the outbox"

_NO_PRIVILEGE = "42501"
_LOGIN = {"28000", "28P01", "3D000"}
_LOCKED = {"55P03", "40P01"}
_CANCELLED = "57014"
_NO_TABLE = {"3F000", "42P01"}

# Classes: connection, resources, operator intervention (shutdown, crash), system errors, serialisation.
_TRANSIENT_CLASSES = {"08", "53", "57", "58", "40"}

# Errors of TLS have no code. Their text is libpq's, whatever the server's language is: about certificates
# and keys of either side, and about a server without TLS. Any other error without a code is an error of the network.
_TLS_REFUSED = re.compile(
    r"certificate|private (SSL )?key|does not support SSL|SSL error: (ssl|tls)v\w* alert|wrong version number",
    re.IGNORECASE,
)
# libpq's texts about a parameter of the DSN, which it meets before it connects.
_BAD_PARAMETER = re.compile(
    r"(?:^|: )(invalid \S+(?: \S+)? value|invalid port number|could not match \d+|bad value for)"
)
_EXAMPLE = "OUTHAUL_POSTGRES_DSN=postgresql://...?sslmode=verify-full&sslrootcert=/path/to/ca.pem"


class SlotHeldError(TransientError):
    """Another session streams from the slot; a standby reader waits for it."""


class UnsupportedBinary(PipelineError):  # noqa: N818 - not a failure: the reader continues with text tuples
    """A value cannot come in binary form: connect again with `binary 'false'`."""


class LockedError(TransientError):
    """Another session has the lock; the statement changed nothing."""


class SlowError(TransientError):
    """A statement exceeded its timeout, and changed nothing."""


class NotAllowedError(FatalError):
    """The role lacks a privilege."""


def error_of(sqlstate: str | None, message: str, *, slot: str = "", publication: str = "") -> PipelineError:
    """Return the error of the right kind.

    Args:
        sqlstate: five characters; None without an answer.
        message: Postgres' text; its first line is used.
        slot: the slot that the statement uses, if it uses one.
        publication: the publication that is streamed through the slot, if the stream has begun.
    """
    text = next(iter(message.strip().splitlines()), "no answer")
    if sqlstate is None:
        return _no_answer(text)
    if slot and (found := _of_slot(sqlstate, text, slot, publication)) is not None:
        return found
    if sqlstate in _LOGIN:
        return FatalError(
            f"Postgres refuses the login: {text}",
            todo="Check user, password and database in OUTHAUL_POSTGRES_DSN",
            exit_code=Exit.POSTGRES_LOGIN,
        )
    if sqlstate in _LOCKED:
        return LockedError(
            f"Postgres: {text}", todo="Another session has the lock (pg_locks); try again when that session has ended"
        )
    if sqlstate == _CANCELLED:
        return SlowError(f"Postgres: {text}", exit_code=Exit.POSTGRES_UNREACHABLE)
    if sqlstate[:2] in _TRANSIENT_CLASSES:
        return TransientError(f"Postgres: {text}", exit_code=Exit.POSTGRES_UNREACHABLE)
    if sqlstate == _NO_PRIVILEGE:
        return NotAllowedError(
            f"Postgres: {text}",
            todo="Grant the reader's role what it lacks: ALTER ROLE ... REPLICATION; GRANT outhaul_reader TO ...",
            exit_code=Exit.ROLE,
        )
    if sqlstate in _NO_TABLE:
        return FatalError(
            f"Postgres: {text}",
            todo="Set OUTHAUL_TABLE to the outbox as schema.table; `outhaul setup` creates a table, but not a schema",
            exit_code=Exit.TABLE_MISSING,
        )
    return FatalError(
        f"Postgres ({sqlstate}): {text}",
        todo="The slot is kept; fix the cause that the message names",
        exit_code=Exit.STREAM_BROKEN,
    )


def _no_answer(text: str) -> PipelineError:
    if _TLS_REFUSED.search(text):
        return tls.refusal("Postgres", text, _EXAMPLE)
    if _BAD_PARAMETER.search(text):
        return FatalError(
            f"OUTHAUL_POSTGRES_DSN: {text}",
            todo="Correct this parameter of the DSN, or the variable PG… that sets it",
            exit_code=Exit.SETTINGS,
        )
    return TransientError(
        f"Postgres does not answer: {text}",
        todo="Check that it runs and that OUTHAUL_POSTGRES_DSN reaches it",
        exit_code=Exit.POSTGRES_UNREACHABLE,
    )


def _of_slot(sqlstate: str, text: str, slot: str, publication: str) -> PipelineError | None:
    match sqlstate:
        case "55006":
            return SlotHeldError(
                f"slot {slot!r} is held by another session: {text}",
                todo="Another reader runs; stop it, or let this one wait as a standby reader",
                exit_code=Exit.SLOT_HELD,
            )
        case "42704" if publication:
            return FatalError(
                f"Postgres: {text}",
                todo=f"Publication {publication!r} must be older than slot {slot!r}: create it with `outhaul setup`; "
                "if the slot is older, create the slot again",
                exit_code=Exit.PUBLICATION_MISSING,
            )
        case "42704":
            return slot_missing(slot)
        case "55000":
            return slot_unusable(slot, text)
    return None


def result_error(result: PGresult, *, slot: str = "", publication: str = "") -> PipelineError:
    """Return the error of a command that the server refused; the names are those of `error_of`."""
    state = result.error_field(DiagnosticField.SQLSTATE)
    return error_of(state.decode() if state else None, result.get_error_message(), slot=slot, publication=publication)


def table_missing(table: str) -> FatalError:
    """Return the error for an outbox that does not exist."""
    return FatalError(
        f"Postgres has no table {table}",
        todo="Create it with `outhaul setup`, or set OUTHAUL_TABLE to your outbox, as schema.table",
        exit_code=Exit.TABLE_MISSING,
    )


def slot_missing(slot: str) -> FatalError:
    """Return the error for a slot that does not exist."""
    return FatalError(
        f"slot {slot!r} does not exist",
        todo="Create it with `outhaul slot reset --recreate`: it copies the missed events from the outbox. On a "
        "database that outhaul has never used: `outhaul setup`",
        exit_code=Exit.SLOT_MISSING,
    )


def slot_unusable(slot: str, why: str, todo: str = "") -> FatalError:
    """Return the error for a slot that cannot be streamed from; `todo` if creating it again is not enough."""
    return FatalError(
        f"slot {slot!r} cannot be streamed from: {why}",
        todo=todo or f"{RECREATE}. Or set OUTHAUL_SLOT to another slot",
        exit_code=Exit.SLOT_UNUSABLE,
    )
