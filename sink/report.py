"""Outcome of a batch -> a line on the Redis list of reports, and back.

Pure. The sink writes the lines and the reader reads them. Only STORED moves a position; the other outcomes spare the
reader guesses. A reader of the previous release must be able to read every line. So a new release may add fields, but
must not remove or change any. A new outcome may only answer a message that the previous release cannot send.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from outhaul.sink.errors import Exit

# The sink writes no longer line, and no task waits longer. If a line exceeds either, another program wrote it.
_MAX_LINE_BYTES = 64 << 10
_MAX_WAIT_S = 24 * 3600


class Outcome(StrEnum):
    """What a task did with a batch."""

    BEGUN = "begun"  # a worker works on the batch, and renews the batch's liveness key until it is done
    STORED = "stored"  # ClickHouse has all rows of the batch, some perhaps as dead letters
    RETRYING = "retrying"  # a transient error; Celery runs the same task again
    MISSING = "missing"  # the payload is not in Redis, or is not the announced one: send it again
    STALE = "stale"  # a newer reader has taken over
    FATAL = "fatal"  # stop: an operator is needed
    OTHER_VERSION = "other_version"  # this worker's release cannot read the message; another worker's may


@dataclass(frozen=True, slots=True)
class Report:
    """One task's report on one batch.

    `dead_letters` counts the rows set aside; `wait_s` is the time until a RETRYING task runs again, in seconds.
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
        """Return the report as a line."""
        return json.dumps(
            {"outcome": self.outcome.value, "token": self.token, "sequence": self.sequence}
            | {"dead_letters": self.dead_letters, "error": self.error, "todo": self.todo}
            | {"exit_code": self.exit_code, "code": self.code, "wait_s": self.wait_s}
        )

    @classmethod
    def from_json(cls, line: bytes | str) -> Self | None:
        """Read a line; None if the sink cannot have written it: then the reader logs it and does nothing else."""
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
    # A newer worker may send an exit code that this reader does not know. The rest of the report is still valid.
    return int(Exit(code)) if code in set(Exit) else int(Exit.NOT_FINE)
