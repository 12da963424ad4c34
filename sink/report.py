"""What became of a batch -> a line on the stored-list, and back.

Pure. The sink writes these, the reader reads them. Only STORED moves a position; the rest keeps the reader from
guessing. A reader of the release before must understand what it is told: fields may come, but none may go or change,
and an outcome that it does not know may only answer a message that it cannot have sent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from outhaul.sink.errors import Exit

# No line of ours is longer, and no task waits longer; what is, was put on the list by somebody else.
_MAX_LINE_BYTES = 64 << 10
_MAX_WAIT_S = 24 * 3600


class Outcome(StrEnum):
    """What a task did with a batch."""

    BEGUN = "begun"  # a worker has the batch in hand, and renews the batch's sign of life as long as it does
    STORED = "stored"  # ClickHouse has all of its rows, some perhaps as dead letters
    RETRYING = "retrying"  # a transient error; the same task comes back by itself
    MISSING = "missing"  # the payload is not in Redis, or is not the one announced: send it again
    STALE = "stale"  # a newer reader has taken over
    FATAL = "fatal"  # stop, an operator is needed
    OTHER_VERSION = "other_version"  # the worker's release cannot read the message; another worker's may


@dataclass(frozen=True, slots=True)
class Report:
    """One task's word on one batch.

    `dead_letters` counts the rows set aside; `wait_s` says when a RETRYING task comes back, in seconds.
    """

    outcome: Outcome
    token: str
    sequence: int
    dead_letters: int = 0
    error: str = ""
    todo: str = ""
    exit_code: int = 1
    code: int | None = None
    wait_s: float = 0.0

    def to_json(self) -> str:
        """Return the line."""
        return json.dumps(
            {"outcome": self.outcome.value, "token": self.token, "sequence": self.sequence}
            | {"dead_letters": self.dead_letters, "error": self.error, "todo": self.todo}
            | {"exit_code": self.exit_code, "code": self.code, "wait_s": self.wait_s}
        )

    @classmethod
    def from_json(cls, line: bytes | str) -> Self | None:
        """Read a line; None when it is none of ours, which a reader may only log."""
        try:
            if len(line) > _MAX_LINE_BYTES:
                return None
            data = json.loads(line)
            report = cls(
                Outcome(data["outcome"]),
                str(data["token"]),
                int(data["sequence"]),
                int(data["dead_letters"]),
                str(data["error"]),
                str(data["todo"]),
                _known_exit(data["exit_code"]),
                data["code"],
                float(data["wait_s"]),
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None
        return report if report._is_possible() else None

    def _is_possible(self) -> bool:
        whole = self.sequence >= 0 and self.dead_letters >= 0
        return whole and 0 <= self.wait_s <= _MAX_WAIT_S and (self.code is None or type(self.code) is int)


def _known_exit(code: int) -> int:
    # A newer worker may know exit codes that this reader does not; its report must be heard all the same.
    return int(Exit(code)) if code in set(Exit) else int(Exit.NOT_FINE)
