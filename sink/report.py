"""What became of a batch -> a line on the stored-list, and back.

Pure. The sink writes these, the reader reads them. Only STORED moves a position; the rest keeps the reader from
guessing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Outcome(StrEnum):
    """What a task did with a batch."""

    BEGUN = "begun"  # a worker has the batch in hand, and renews the batch's sign of life as long as it does
    STORED = "stored"  # ClickHouse has all of its rows, some perhaps as dead letters
    RETRYING = "retrying"  # a transient error; the same task comes back by itself
    MISSING = "missing"  # the payload is not in Redis, or is not the one announced: send it again
    STALE = "stale"  # a newer reader has taken over
    FATAL = "fatal"  # stop, an operator is needed


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
            data = json.loads(line)
            return cls(
                Outcome(data["outcome"]),
                str(data["token"]),
                int(data["sequence"]),
                int(data["dead_letters"]),
                str(data["error"]),
                str(data["todo"]),
                int(data["exit_code"]),
                data["code"],
                float(data["wait_s"]),
            )
        except (ValueError, KeyError, TypeError):
            return None
