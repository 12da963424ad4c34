"""`1h30m`, `24MiB`, `2026-01-31T12:00` -> seconds, bytes, a moment; and seconds and bytes as text.

Pure. Settings and options of commands are read alike. A number without a unit is in seconds or bytes.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

DURATIONS = "500ms, 60s, 2h, 7d or 1h30m; a number without a unit is in seconds"
SIZES = "24MiB or 50GB (1GiB is 2^30 bytes, 1GB is 10^9); a number without a unit is in bytes"
MOMENTS = "2026-01-31, 2026-01-31T12:00 (UTC unless the time has an offset), or an age such as 2h or 7d"

_UNITS_S: dict[str, float] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_UNITS_BYTES = {"b": 1} | {
    f"{prefix}{suffix}": base**power
    for suffix, base in (("b", 1000), ("ib", 1024))
    for power, prefix in enumerate("kmgt", 1)
}
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
_DURATION = re.compile(rf"(?:{_NUMBER}(?:ms|[smhdw]))+")
_DURATION_PART = re.compile(rf"({_NUMBER})(ms|[smhdw])")
_SIZE = re.compile(rf"({_NUMBER})([kmgt]?i?b)", re.IGNORECASE)


def seconds(text: str) -> float:
    """Read a duration.

    Raises:
        ValueError: the text is not a duration; the message has examples.
    """
    if _DURATION.fullmatch(text):
        parts = _DURATION_PART.findall(text)
        return math.fsum(float(number) * _UNITS_S[unit] for number, unit in parts)
    number = _plain(text)
    if number is None:
        raise ValueError(f"{text!r} is not a duration: write {DURATIONS}")
    return number


def age(text: str) -> float:
    """Read a duration whose unit must be written: of what is older, rows are deleted.

    Raises:
        ValueError: the text is not a duration, or has no unit; the message has examples.
    """
    found = seconds(text)
    if _plain(text) is not None:
        raise ValueError(f"{text!r} has no unit: write 7d or 12h")
    return found


def size_bytes(text: str) -> int:
    """Read a size.

    Raises:
        ValueError: the text is not a size, or not one of whole bytes; the message has examples.
    """
    match = _SIZE.fullmatch(text)
    unit = _UNITS_BYTES.get(match[2].lower()) if match else 1
    number = _plain(match[1] if match else text)
    if number is None or unit is None or not (number * unit).is_integer():
        raise ValueError(f"{text!r} is not a size: write {SIZES}")
    return int(number * unit)


def moment(text: str, now: datetime) -> datetime:
    """Read a moment: an ISO 8601 time, UTC if it has no offset, or an age before `now`.

    Raises:
        ValueError: the text is neither; the message has examples.
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        if not _DURATION.fullmatch(text):
            raise ValueError(f"{text!r} is not a moment: write {MOMENTS}") from None
        try:
            return now - timedelta(seconds=seconds(text))
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def spelled_s(value_s: float) -> str:
    """Write a duration as `seconds` reads it: `7d`, `90m`, `100s`, `200ms`."""
    for unit in ("d", "h", "m"):
        count = value_s / _UNITS_S[unit]
        if count.is_integer() and count > 1:
            return f"{count:.0f}{unit}"
    unit, count = ("ms", value_s * 1000) if 0 < value_s < 1 else ("s", value_s)
    return f"{count:.6f}".rstrip("0").rstrip(".") + unit


def spelled_bytes(value: int) -> str:
    """Write a size as `size_bytes` reads it: `24MiB`, `50GB`; in bytes if no unit divides it."""
    for unit in ("tib", "tb", "gib", "gb", "mib", "mb", "kib", "kb"):
        if value and value % _UNITS_BYTES[unit] == 0:
            return f"{value // _UNITS_BYTES[unit]}{_SPELLED[unit]}"
    return str(value)


_SPELLED = {unit: unit[:-1].upper().replace("I", "i") + "B" for unit in _UNITS_BYTES} | {"kb": "kB"}


def size_text(count: float | None) -> str:
    """Return a number of bytes for people, in powers of ten: `999 B`, `1.5 kB`; nothing known is `0 B`."""
    value = float(count or 0)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:  # noqa: PLR2004 - the next unit
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration_text(value_s: float) -> str:
    """Return seconds for people: `45 s`, `12 min`, `3 h 20 min`, `4 d`."""
    if value_s < 120:  # noqa: PLR2004 - two minutes
        return f"{value_s:.0f} s"
    minutes = math.floor(value_s / 60)
    if minutes < 120:  # noqa: PLR2004 - two hours
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d"  # noqa: PLR2004 - two days


def _plain(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None
