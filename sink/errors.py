"""A failure -> what to do about it: wait and repeat, set the rows aside, or stop.

Pure. Every exception that leaves a stage is of one of these three kinds. The edge that catches a driver's exception
translates it, by its error code and not by its text. An unclassified error is fatal: a stopped reader keeps the slot,
and so Postgres keeps the events.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self


class Exit(IntEnum):
    """Exit codes of `outhaul`: one for each action that an operator can take.

    docs/reference/exit-codes.md is made of these lines: the meaning, what to do, and runbooks that help.
    """

    meaning: str
    action: str
    pages: tuple[str, ...]

    def __new__(cls, code: int, meaning: str = "", action: str = "", *pages: str) -> Self:
        """Keep what the reference page prints beside the code."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning, member.action, member.pages = meaning, action, pages
        return member

    FINE = 0, "Success.", "Nothing."
    NOT_FINE = 1, "A command found a problem, or the error has no code of its own.", "Read the last line."
    USAGE = (
        2,
        "The command line is wrong, or the command needs a confirmation and stdin is not a terminal.",
        "Type the command with `--help`, or pass `--yes`.",
    )
    SETTINGS = 3, "A setting is invalid, or a package is not installed.", "Correct what the last line names."
    POSTGRES_UNREACHABLE = 10, "Postgres does not answer.", "Start it, or wait.", "postgres-down"
    POSTGRES_LOGIN = (
        11,
        "Postgres refuses the login.",
        "Correct user, password or database in the variable that the last line names.",
        "reader-does-not-start",
    )
    WAL_LEVEL = (
        12,
        "Postgres is too old, or `wal_level` is not `logical`.",
        "Run the statement of the last line.",
        "reader-does-not-start",
    )
    ROLE = (
        13,
        "The role lacks the right to replicate or to read all rows.",
        "Run the statement of the last line.",
        "reader-does-not-start",
    )
    TABLE_MISSING = (
        14,
        "The outbox does not exist, or events of such a table would be missed or stored twice.",
        "Type `outhaul setup`, correct `OUTHAUL_TABLE`, or do what the last line says.",
        "reader-does-not-start",
    )
    PUBLICATION_MISSING = (
        15,
        "The publication does not exist, or it publishes more than the inserts of the outbox.",
        "Type `outhaul setup`, or the statement of the last line.",
        "reader-does-not-start",
    )
    SLOT_MISSING = 16, "The slot does not exist.", "Type `outhaul slot create`.", "slot-gone"
    SLOT_HELD = (
        17,
        "Another session uses the slot.",
        "If another reader runs, nothing. If an operator is changing the slot, wait.",
        "reader-does-not-start",
    )
    SLOT_UNUSABLE = 18, "No session can stream from the slot.", "Type `outhaul slot reset --recreate`.", "slot-lost"
    OTHER_HISTORY = (
        19,
        "The slot has another history: a promoted standby, another or restored server, or a slot not streamed from.",
        "Read the page; after `pg_upgrade`, the second one.",
        "failover",
        "postgres-upgrade",
    )
    CLICKHOUSE_UNREACHABLE = 20, "ClickHouse does not answer.", "Start it, or wait.", "clickhouse-down"
    CLICKHOUSE_LOGIN = (
        21,
        "ClickHouse refuses the login.",
        "Correct user and password in `OUTHAUL_CLICKHOUSE_URL`.",
        "reader-does-not-start",
    )
    CLICKHOUSE_TABLE = (
        22,
        "A ClickHouse table does not exist, or ClickHouse would lose or repeat events.",
        "Type `outhaul setup`, or do what the last line says.",
        "reader-does-not-start",
    )
    CLICKHOUSE_REFUSED = (
        23,
        "ClickHouse refuses an operation of the pipeline.",
        "Do what the last line says: a grant or a column is missing, or a profile or a proxy stands in the way.",
        "reader-does-not-start",
    )
    REDIS_UNREACHABLE = 30, "Redis does not answer.", "Start it, or wait.", "redis-lost"
    REDIS_LOGIN = (
        31,
        "Redis refuses the login.",
        "Correct user and password in `OUTHAUL_REDIS_URL`.",
        "reader-does-not-start",
    )
    REDIS_FULL = 32, "Redis is full.", "Give it more memory, or stop its other users.", "redis-lost"
    REDIS_READ_ONLY = (
        33,
        "Redis is a replica.",
        "Let `OUTHAUL_REDIS_URL` lead to the primary, or name the Sentinels in it.",
        "redis-lost",
    )
    REDIS_REFUSED = (
        34,
        "Redis lacks a command that the pipeline needs, or takes no value of a batch's size.",
        "Do what the last line says.",
        "reader-does-not-start",
    )
    STREAM_BROKEN = (
        40,
        "The stream from Postgres violates the protocol.",
        "Keep the log, start the reader again, and report it if it happens again.",
        "reader-does-not-start",
    )


class PipelineError(Exception):
    """Base class of all errors of the pipeline; pickles with all its parts, so Celery can send it between processes."""

    def __init__(
        self, message: str, *, code: int | None = None, todo: str = "", exit_code: Exit = Exit.NOT_FINE
    ) -> None:
        """Keep the parts.

        Args:
            message: what happened, one line.
            code: the server's own error code, if it sent one.
            todo: what the operator can do: one sentence, printed after the message.
            exit_code: exit code of a process that stops on this error.
        """
        super().__init__(message)
        self.message = message
        self.code = code
        self.todo = todo
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.code, self.todo, int(self.exit_code))

    def __str__(self) -> str:
        return f"{self.message}. {self.todo}" if self.todo else self.message


def _rebuild(kind: type[PipelineError], message: str, code: int | None, todo: str, exit_code: int) -> PipelineError:
    return kind(message, code=code, todo=todo, exit_code=Exit(exit_code))


class TransientError(PipelineError):
    """Wait, then repeat the same operation with the same batch and the same token."""


class PoisonError(PipelineError):
    """These rows cannot be stored as they are: set them aside in the dead letters."""


class TooLargeError(PoisonError):
    """A request of this size does not reach the server; fewer rows may. A dead letter would be as large."""


class FatalError(PipelineError):
    """Stop and keep the slot; `todo` says what the operator can do next."""


class ForeignMessageError(FatalError):
    """A message that no reader of this pipeline has sent; the worker drops it, and reports it to no reader."""


class FrameError(FatalError):
    """The bytes from Postgres do not follow the protocol; the decoder does not guess values."""

    def __init__(self, message: str, **parts: Any) -> None:
        """Set the exit code that all broken streams share."""
        parts.setdefault("exit_code", Exit.STREAM_BROKEN)
        super().__init__(message, **parts)
