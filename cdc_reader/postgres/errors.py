"""SQLSTATE of Postgres -> which kind of error it is, and what the operator can do.

Pure, but for `translated`, which meets the exceptions of the driver. As for ClickHouse: a code that nobody classified
is fatal, and no answer at all is transient.

Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from outhaul.sink import tls
from outhaul.sink.errors import Exit, FatalError, PipelineError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOT_IN_USE = "55006"

MAKE_ANEW = "Make it anew: `outhaul slot reset --recreate`; what it skips is copied from the outbox"

_UNDEFINED_OBJECT = "42704"
_NOT_IN_STATE = "55000"
_NO_PRIVILEGE = "42501"
_LOGIN = {"28000", "28P01", "3D000"}

# By class: connection, resources, operator intervention (shutdown, crash), system errors, internal deadlocks.
_TRANSIENT_CLASSES = {"08", "53", "57", "58", "40"}

# libpq has neither code nor class for these, and says them in its own words, whatever the server's language is: of
# certificates and keys, ours or theirs, and of a server without TLS. What else breaks a connection is the network's.
_TLS_REFUSED = re.compile(
    r"certificate|private (SSL )?key|does not support SSL|SSL error: (ssl|tls)v\w* alert|wrong version number",
    re.IGNORECASE,
)
_EXAMPLE = "OUTHAUL_POSTGRES_DSN=postgresql://...?sslmode=verify-full&sslrootcert=/path/to/ca.pem"


class SlotHeldError(TransientError):
    """Another session streams from the slot; a standby reader waits for it."""


def error_of(sqlstate: str | None, message: str, *, slot: str = "", publication: str = "") -> PipelineError:
    """Return the error of the right kind.

    Args:
        sqlstate: five characters; None when there was no answer.
        message: Postgres' text, first line is kept.
        slot: names the slot in the advice.
        publication: names the publication in the advice.
    """
    text = next(iter(message.strip().splitlines()), "no answer")
    if sqlstate is None and _TLS_REFUSED.search(text):
        return tls.refusal("Postgres", text, _EXAMPLE)
    if sqlstate is None:
        return TransientError(
            f"Postgres does not answer: {text}",
            todo="Check that it runs and that OUTHAUL_POSTGRES_DSN reaches it",
            exit_code=Exit.POSTGRES_UNREACHABLE,
        )
    if sqlstate == SLOT_IN_USE:
        return SlotHeldError(
            f"slot {slot!r} is held by another session: {text}",
            todo="Another reader runs; stop it, or let this one wait as its standby",
            exit_code=Exit.SLOT_HELD,
        )
    if sqlstate in _LOGIN:
        return FatalError(
            f"Postgres refuses the login: {text}",
            todo="Check user, password and database in OUTHAUL_POSTGRES_DSN",
            exit_code=Exit.POSTGRES_LOGIN,
        )
    if sqlstate[:2] in _TRANSIENT_CLASSES:
        return TransientError(f"Postgres: {text}", exit_code=Exit.POSTGRES_UNREACHABLE)
    if sqlstate == _NO_PRIVILEGE:
        return FatalError(
            f"Postgres: {text}",
            todo="Give the reader's role what it lacks: ALTER ROLE ... REPLICATION; GRANT outhaul_reader TO ...",
            exit_code=Exit.ROLE,
        )
    if sqlstate == _UNDEFINED_OBJECT and "slot" in text:
        return slot_missing(slot)
    if sqlstate == _UNDEFINED_OBJECT:
        return FatalError(
            f"Postgres: {text}",
            todo=f"Publication {publication!r} must be older than slot {slot!r}: create it with `outhaul setup`; "
            "if the slot is older, it has to be made anew",
            exit_code=Exit.PUBLICATION_MISSING,
        )
    if sqlstate == _NOT_IN_STATE:
        return slot_unusable(slot, text)
    return FatalError(
        f"Postgres ({sqlstate}): {text}",
        todo="The slot is kept; mend what the message names",
        exit_code=Exit.STREAM_BROKEN,
    )


@contextmanager
def translated(slot: str = "") -> Iterator[None]:
    """Turn the driver's errors in the block into ours, also those of leaving a connection that broke meanwhile.

    Raises:
        PipelineError: of the kind that Postgres' code says.
    """
    try:
        yield
    except psycopg.Error as error:
        raise error_of(error.sqlstate, str(error), slot=slot) from error


def slot_missing(slot: str) -> FatalError:
    """Return the error for a slot that does not exist."""
    return FatalError(
        f"slot {slot!r} does not exist",
        todo="Create it with `outhaul slot reset --recreate`: what it missed is copied from the outbox. On a database "
        "that outhaul has never seen: `outhaul setup`",
        exit_code=Exit.SLOT_MISSING,
    )


def slot_unusable(slot: str, why: str, todo: str = "") -> FatalError:
    """Return the error for a slot that cannot be streamed from; `todo` where it takes more than making it anew."""
    return FatalError(
        f"slot {slot!r} cannot be streamed from: {why}",
        todo=todo or f"{MAKE_ANEW}. Or name another one in OUTHAUL_SLOT",
        exit_code=Exit.SLOT_UNUSABLE,
    )
