"""An event's context, in an app's own types -> JSON text that Postgres' jsonb accepts without loss.

Pure. Numbers are written as Postgres prints them, so the size limit applies to the text that Postgres sends later:
jsonb prints `1e308` with 309 digits.

Source: https://www.postgresql.org/docs/current/datatype-json.html
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from json.encoder import encode_basestring
from math import isfinite
from pathlib import PurePath
from typing import TYPE_CHECKING, Any
from uuid import UUID

from outhaul.errors import EventError

if TYPE_CHECKING:
    from collections.abc import Iterable

# The context is copied into Postgres' log, into Redis and into a worker's memory. Store larger data elsewhere, and put
# its address into the event.
MAX_CONTEXT_BYTES = 1 << 20
# Some JSON parsers stop at a few hundred levels, and Python at a thousand. The limit also ends a context that contains
# itself.
MAX_DEPTH = 100
# The most digits before and after the decimal point that Postgres' numeric holds.
_MAX_WHOLE_DIGITS, _MAX_FRACTION_DIGITS = 131_072, 16_383

_TOO_LARGE = f"larger than {MAX_CONTEXT_BYTES:,} bytes: store large data elsewhere, and put its address into the event"

_HINTS: dict[type, str] = {
    bytes: "decode it, or write base64.b64encode(…).decode()",
    bytearray: "decode it, or write base64.b64encode(…).decode()",
    memoryview: "decode it, or write base64.b64encode(…).decode()",
    timedelta: "write its total_seconds()",
    complex: "write its two parts",
}


def context_json(context: object) -> str:
    """Return the JSON text of a mapping, a dataclass or a pydantic model.

    Raises:
        EventError: a value does not fit into JSON or jsonb, or the text is larger than `MAX_CONTEXT_BYTES`. The message
            gives the path to the value.

    Source: https://www.postgresql.org/docs/current/datatype-json.html
    """
    writer = _Writer()
    try:
        writer.write_all(context)
    except EventError as error:
        raise EventError(f"context{''.join(reversed(writer.path))} {error}" if writer.path else str(error)) from error
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError) as error:
        # The app's own types raise these when their values are read.
        raise EventError(f"context{''.join(reversed(writer.path))} cannot be read: {error}") from error
    text = "".join(writer.parts)
    if not text.isascii() and len(text.encode()) > MAX_CONTEXT_BYTES:
        raise EventError(f"context is {_TOO_LARGE}")
    return text


class _Writer:
    """The text so far in pieces, the characters left, and after an error the path to the bad value, innermost first."""

    __slots__ = ("left_characters", "parts", "path")

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.path: list[str] = []
        self.left_characters = MAX_CONTEXT_BYTES

    def add(self, text: str) -> None:
        # A text never has more characters than bytes. The bytes are counted at the end.
        self.left_characters -= len(text)
        if self.left_characters < 0:
            raise EventError(f"makes the context {_TOO_LARGE}")
        self.parts.append(text)

    def write_all(self, context: object) -> None:
        """Add the whole context."""
        plain = context if type(context) is dict else _unwrapped(context)
        if not isinstance(plain, Mapping):
            raise EventError(f"context must be a mapping, a dataclass or a pydantic model, got {_kind(context)}")
        self._object(plain, 0)

    def write(self, value: object, depth: int) -> None:
        """Add one value."""
        text = None if type(value) is dict else _leaf(value)
        if text is not None:
            self.add(text)
            return
        if depth >= MAX_DEPTH:
            raise EventError(f"is nested deeper than {MAX_DEPTH} levels, or holds itself")
        plain = _unwrapped(value)
        if isinstance(plain, Mapping):
            self._object(plain, depth)
        elif isinstance(plain, (list, tuple)):
            self._array(plain, depth)
        elif isinstance(plain, (set, frozenset)):
            self._array(_sorted_if_possible(plain), depth)
        elif plain is value:
            raise EventError(f"is {_kind(value)}, which JSON cannot hold: {_hint(value)}")
        else:
            self.write(plain, depth + 1)

    def _object(self, members: Mapping[Any, Any], depth: int) -> None:
        before = "{"
        for key, value in members.items():
            if not isinstance(key, str):
                raise EventError(f"has the key {_shown(key)}, {_kind(key)}: keys must be str")
            self.add(f"{before}{_text(key)}:")
            before = ","
            try:
                self.write(value, depth + 1)
            except Exception:
                self.path.append(f"[{_shown(key)}]")
                raise
        self.add("}" if before == "," else "{}")

    def _array(self, items: Iterable[object], depth: int) -> None:
        before = "["
        for number, value in enumerate(items):
            self.add(before)
            before = ","
            try:
                self.write(value, depth + 1)
            except Exception:
                self.path.append(f"[{number}]")
                raise
        self.add("]" if before == "," else "[]")


def _leaf(value: object) -> str | None:
    """Return the JSON text of a scalar; None if the value may contain other values."""
    # Nearly all values have one of these two types, so they are checked first.
    if type(value) is str:
        return _text(value)
    if type(value) is int:
        return _whole(value)
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    # An IntEnum is also an int. Its value is written, not its name.
    if isinstance(value, Enum):
        return None
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (int, float, Decimal)):
        return _number(value)
    return _named(value)


def _named(value: object) -> str | None:
    if isinstance(value, datetime) and value.utcoffset() is None:
        raise EventError(f"is {value!r}, which has no time zone: use datetime.now(UTC)")
    if isinstance(value, (date, time)):
        return _text(value.isoformat())
    return _text(str(value)) if isinstance(value, (UUID, PurePath)) else None


def _text(value: str) -> str:
    if "\0" in value:
        raise EventError("holds a NUL character, which Postgres' jsonb does not accept")
    text: str = encode_basestring(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise EventError("holds half of a surrogate pair, which is not valid Unicode text") from error
    return text


def _number(value: float | Decimal) -> str:
    if isinstance(value, int):
        return _whole(value)
    if isinstance(value, float):
        text = float.__repr__(value)
        if "e" not in text and isfinite(value):
            return text
        value = Decimal(text)
    if not value.is_finite():
        raise EventError(f"is {value}, which JSON cannot hold: use None or a string")
    exponent = value.as_tuple().exponent
    if value.adjusted() >= _MAX_WHOLE_DIGITS or (isinstance(exponent, int) and -exponent > _MAX_FRACTION_DIGITS):
        raise EventError("is a number with more digits than Postgres' numeric can hold")
    return format(value, "f")


def _whole(value: int) -> str:
    try:
        return int.__repr__(value)
    except ValueError as error:
        limit = sys.get_int_max_str_digits()
        raise EventError(f"is an int of more than {limit} digits, which Python does not print") from error


def _unwrapped(value: object) -> object:
    """Return the value of an enum, or the fields of a dataclass or model; any other value as it is."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, type):
        return value
    if is_dataclass(value):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(mode="json")
    return value


def _sorted_if_possible(items: set[Any] | frozenset[Any]) -> list[Any]:
    try:
        return sorted(items)
    except TypeError:
        return list(items)


def _hint(value: object) -> str:
    return next((hint for kind, hint in _HINTS.items() if isinstance(value, kind)), "convert it to a JSON type")


def _kind(value: object) -> str:
    return f"of type {type(value).__name__}"


def _shown(key: object) -> str:
    return ascii(key) if len(ascii(key)) <= 40 else f"{ascii(key)[:40]}…"  # noqa: PLR2004 - keeps the message on one line
