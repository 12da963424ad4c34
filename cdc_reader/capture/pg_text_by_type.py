"""One value in binary form, of a type that ClickHouse stores as text -> the text that Postgres prints, checked.

Pure. Intervals are printed in ISO 8601: the session sets `intervalstyle=iso_8601`.

Source: the `*send` and `*out` functions in https://github.com/postgres/postgres/tree/master/src/backend/utils/adt
"""

from __future__ import annotations

import struct
from itertools import groupby
from typing import TYPE_CHECKING

from outhaul.cdc_reader.capture.column_types import Oid
from outhaul.cdc_reader.capture.numeric import print_numeric
from outhaul.sink.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_DAY_US = 86_400_000_000

_END_ZONE_S = 16 * 3600
_INFINITE_INTERVAL = {
    ((1 << 63) - 1, (1 << 31) - 1, (1 << 31) - 1): "infinity",
    (-(1 << 63), -(1 << 31), -(1 << 31)): "-infinity",
}
_V4, _V6 = 2, 3
_ADDRESS_BYTES = {_V4: 4, _V6: 16}
_MAPPED = (0, 0, 0, 0, 0, 0xFFFF)


def _unpack(form: str, raw: bytes, what: str) -> tuple[int, ...]:
    if len(raw) != struct.calcsize(form):
        raise FrameError(f"a value of type {what} has the wrong length")
    return struct.unpack(form, raw)


def _clock(since_midnight_us: int) -> str:
    """Print a time of day, 24:00:00 included."""
    if not 0 <= since_midnight_us <= _DAY_US:
        raise FrameError("a time is out of Postgres' range")
    seconds, us = divmod(since_midnight_us, 1_000_000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{_seconds(seconds % 60, us, width=2)}"


def _seconds(seconds: int, us: int, *, width: int = 1) -> str:
    fraction = f".{us:06d}".rstrip("0") if us else ""
    return f"{seconds:0{width}d}{fraction}"


def _time(raw: bytes) -> str:
    return _clock(*_unpack(">q", raw, "time"))


def _timetz(raw: bytes) -> str:
    since_midnight_us, west_s = _unpack(">qi", raw, "timetz")
    if abs(west_s) >= _END_ZONE_S:
        raise FrameError("the zone of a timetz is out of Postgres' range")
    minutes, seconds = divmod(abs(west_s), 60)
    parts = [minutes // 60, minutes % 60, seconds]
    while len(parts) > 1 and not parts[-1]:
        parts.pop()
    return _clock(since_midnight_us) + ("-" if west_s > 0 else "+") + ":".join(f"{part:02d}" for part in parts)


def _interval(raw: bytes) -> str:
    us, days, months = fields = _unpack(">qii", raw, "interval")
    if fields in _INFINITE_INTERVAL:
        return _INFINITE_INTERVAL[fields]
    date = _signed(months, [(12, "Y"), (1, "M")]) + _signed(days, [(1, "D")])
    minutes, rest = divmod(abs(us), 60_000_000)
    time = _signed(minutes if us > 0 else -minutes, [(60, "H"), (1, "M")])
    if rest:
        time += ("-" if us < 0 else "") + _seconds(*divmod(rest, 1_000_000)) + "S"
    return f"P{date}{'T' if time else ''}{time}" if date or time else "PT0S"


def _signed(value: int, units: Sequence[tuple[int, str]]) -> str:
    """Print a number in its units, without those that are 0; each unit has the sign of the number."""
    text, rest = "", abs(value)
    for size, unit in units:
        count, rest = divmod(rest, size)
        if count:
            text += f"{'-' if value < 0 else ''}{count}{unit}"
    return text


def _network(*, is_cidr: bool) -> Callable[[bytes], str]:
    def print_network(raw: bytes) -> str:
        if len(raw) < 4 or raw[0] not in _ADDRESS_BYTES:  # noqa: PLR2004 -- family, bits, kind, size
            raise FrameError("a network address has an unknown family")
        family, bits, kind, size = raw[:4]
        width = _ADDRESS_BYTES[family]
        if size != width or len(raw) != 4 + width or bits > 8 * width or kind != is_cidr:
            raise FrameError("a network address has not the length of its family")
        address = ".".join(map(str, raw[4:])) if family == _V4 else _v6(raw[4:])
        return address if bits == 8 * width and not is_cidr else f"{address}/{bits}"

    return print_network


def _v6(raw: bytes) -> str:
    words = struct.unpack(">8H", raw)
    zeros: tuple[int, int] = (0, 0)
    for is_zero, run in groupby(range(8), key=lambda at: words[at] == 0):
        places = list(run)
        if is_zero and len(places) > max(1, zeros[1]):
            zeros = places[0], len(places)
    start, count = zeros
    # Like BIND, Postgres prints the last 32 bits of such an IPv6 address as IPv4.
    tail = ".".join(map(str, raw[12:])) if (start, count) == (0, 6) or words[:6] == _MAPPED else None
    shown = [f"{word:x}" for word in words] if tail is None else [*(f"{word:x}" for word in words[:6]), tail]
    if not count:
        return ":".join(shown)
    return ":".join(shown[:start]) + "::" + ":".join(shown[start + count :])


def _mac(width: int) -> Callable[[bytes], str]:
    def print_mac(raw: bytes) -> str:
        if len(raw) != width:
            raise FrameError("a MAC address has not the length of its type")
        return raw.hex(":")

    return print_mac


def _bits(raw: bytes) -> str:
    if len(raw) < 4:  # noqa: PLR2004 -- the number of bits
        raise FrameError("a bit string is too short")
    (count,) = struct.unpack_from(">i", raw)
    if count < 0 or len(raw) - 4 != (count + 7) // 8:
        raise FrameError("a bit string has not the number of bits in its header")
    return "".join(f"{byte:08b}" for byte in raw[4:])[:count]


PRINTERS: dict[int, Callable[[bytes], str]] = {
    Oid.NUMERIC: print_numeric,
    Oid.TIME: _time,
    Oid.TIMETZ: _timetz,
    Oid.INTERVAL: _interval,
    Oid.INET: _network(is_cidr=False),
    Oid.CIDR: _network(is_cidr=True),
    Oid.MACADDR: _mac(6),
    Oid.MACADDR8: _mac(8),
    Oid.BIT: _bits,
    Oid.VARBIT: _bits,
}
