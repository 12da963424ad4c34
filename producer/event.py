"""Values from an app -> an `Event`, checked before any statement is sent.

Pure. An event that Postgres or ClickHouse would refuse or change raises `EventError` here, while the transaction of the
business change is still usable.

Source: https://www.postgresql.org/docs/current/datatype-json.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from outhaul.context import context_json
from outhaul.errors import EventError

if TYPE_CHECKING:
    from collections.abc import Mapping

# The columns are varchar(255). Keys have the same limit, because an entry of Postgres' index holds at most 2,700 bytes.
_MAX_NAME = 255
_MIN_BIGINT, _MAX_BIGINT = -(2**63), 2**63 - 1
# The range of ClickHouse's DateTime64(6). The range of Postgres' timestamptz is larger.
_EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
_LATEST = datetime(2299, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Event:
    """One event. The context is converted when the event is made; later changes to `context` have no effect.

    Args:
        type: what happened, 1 to 255 characters.
        context: a mapping, a dataclass or a pydantic model.
        environment: 1 to 255 characters; None uses the environment of the outbox.
        at: when it happened, timezone-aware; None uses the transaction's time.
        version: the version of the context's format.
        key: at most 255 characters; duplicates of a key are ignored. None means no key.
        traceparent: the W3C header of a trace; None uses the span that is active, if any.

    Raises:
        EventError: a part is invalid.
    """

    type: str
    context: Mapping[str, Any] | object = field(compare=False)
    environment: str | None = field(default=None, kw_only=True)
    at: datetime | None = field(default=None, kw_only=True)
    version: int = field(default=1, kw_only=True)
    key: str | None = field(default=None, kw_only=True)
    traceparent: str | None = field(default=None, kw_only=True)
    context_json: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the parts.

        Raises:
            EventError: one of them is invalid.
        """
        check_name("type", self.type)
        if self.environment is not None:
            check_name("environment", self.environment)
        if self.key is not None:
            check_name("key", self.key)
        if self.at is not None:
            check_at(self.at)
        if type(self.version) is not int or self.version != 1:
            check_version(self.version)
        if self.traceparent is not None:
            check_traceparent(self.traceparent)
        object.__setattr__(self, "context_json", context_json(self.context))


def check_name(part: str, value: object) -> None:
    """Check that a value is a string of 1 to 255 characters; `part` names it in the message.

    Raises:
        EventError: the value is not such a string.
    """
    if type(value) is str and 0 < len(value) <= _MAX_NAME and value.isascii() and "\0" not in value:
        # The fast path: nearly all names are short ASCII strings.
        return
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME or "\0" in value or not _is_unicode(value):
        raise EventError(f"{part} must be a string of 1 to {_MAX_NAME} characters without NUL, got {_shown(value)}")


def check_at(at: object) -> None:
    """Check that a time is timezone-aware and in the range of ClickHouse's DateTime64(6); None is valid.

    Raises:
        EventError: the time is neither None nor such a datetime.
    """
    if at is None:
        return
    if not isinstance(at, datetime):
        raise EventError(f"at must be a datetime, got {_shown(at)}")
    if at.utcoffset() is None:
        raise EventError(f"at must be timezone-aware, got {at!r}; use datetime.now(UTC)")
    try:
        is_held = _EARLIEST <= at.astimezone(UTC) <= _LATEST
    except OverflowError:
        is_held = False
    if not is_held:
        raise EventError(f"at must be in the years 1900 to 2299, ClickHouse's range, got {at.isoformat()}")


def check_version(version: object) -> None:
    """Check that a version is an int that fits into Postgres' bigint.

    Raises:
        EventError: the version is not such an int.
    """
    if not isinstance(version, int) or isinstance(version, bool) or not _MIN_BIGINT <= version <= _MAX_BIGINT:
        raise EventError(f"version must be an int of at most 64 bits, got {_shown(version)}")


def check_traceparent(traceparent: object) -> None:
    """Check that a value is a W3C traceparent; None is valid.

    Raises:
        EventError: the value is neither None nor a traceparent.
    """
    if traceparent is not None and not is_traceparent(traceparent):
        raise EventError(f"traceparent must be like 00-<32 hex>-<16 hex>-01, got {_shown(traceparent)}")


def is_traceparent(text: object) -> bool:
    """Return whether a value is a W3C traceparent of version 00."""
    return isinstance(text, str) and _TRACEPARENT.fullmatch(text) is not None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    # For other types the type's name is enough; some values cannot be printed.
    return f"{value!a:.80}" if isinstance(value, str) else f"{type(value).__name__}"
