"""What an app knows -> Event, checked before the database is asked.

Pure. An event that Postgres would refuse, or that would arrive otherwise than it was meant, raises here, with the
transaction of the business change still usable.

Source: https://www.postgresql.org/docs/current/datatype-json.html
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

# The columns are varchar(255).
_MAX_NAME = 255


class EventError(ValueError):
    """The event cannot be written as it is; the message says which part and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event.

    `type` and `environment` are names of at most 255 characters; `context` is what JSON can hold; `at` is when it
    happened, timezone-aware (None: the transaction's time); `key` makes a second event with the same key no event.
    """

    type: str
    context: Mapping[str, Any]
    environment: str
    at: datetime | None = None
    version: int = 1
    key: str | None = None
    context_json: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the parts.

        Raises:
            EventError: one of them will not do.
        """
        for name in ("type", "environment"):
            value = getattr(self, name)
            if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME or "\0" in value:
                raise EventError(f"{name} must be a text of 1 to {_MAX_NAME} characters without NUL, got {value!r:.80}")
        if self.at is not None and self.at.tzinfo is None:
            raise EventError(f"at must be timezone-aware, got {self.at!r}; use datetime.now(UTC)")
        try:
            text = json.dumps(self.context, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError) as error:
            raise EventError(f"context is not what JSON can hold: {error}") from error
        if "\\u0000" in text:
            raise EventError("context holds a NUL character, which Postgres' jsonb refuses")
        object.__setattr__(self, "context_json", text)
