"""LSN text or integer -> Lsn; commit LSN and ordinal -> Position, the permanent name of one event.

Pure. Each replay of the same history gives an event the same position; exactly-once delivery depends on this. The
commit LSN comes from the Begin message. The ordinal counts the captured rows of one table within the transaction. The
LSN of the row itself does not identify it: COPY and multi-row INSERT give many rows the same LSN.

Source: https://www.postgresql.org/docs/current/datatype-pg-lsn.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from outhaul.sink.errors import FatalError

_LSN_BITS = 64


class Lsn(int):
    """A byte position in the write-ahead log, 64 bits, printed as Postgres prints it (`16/B374D848`)."""

    __slots__ = ()

    def __new__(cls, value: int) -> Self:
        """Check the range.

        Raises:
            ValueError: the value does not fit 64 bits.
        """
        if not 0 <= value < 1 << _LSN_BITS:
            raise ValueError(f"an LSN has 64 bits, got {value}")
        return super().__new__(cls, value)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `XXX/XXX`.

        Raises:
            ValueError: the text is not an LSN.
        """
        high, slash, low = text.partition("/")
        if not slash:
            raise ValueError(f"an LSN looks like 16/B374D848, got {text!r}")
        return cls((int(high, 16) << 32) | int(low, 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn({self})"


NO_LSN = Lsn(0)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Position of an event in its source: commit LSN, then its ordinal among the transaction's rows of its table."""

    lsn: Lsn
    ordinal: int

    def __str__(self) -> str:
        return f"{self.lsn}#{self.ordinal}"


@dataclass(frozen=True, slots=True)
class History:
    """Cluster and timeline of positions; positions of different histories cannot be compared.

    `of_standby`: the positions are read from a slot on a standby, whose position may differ from the primary's slot.
    """

    system_identifier: str
    timeline: int
    of_standby: bool = False


def parse_position(text: str) -> Position:
    """Read what `str(Position)` wrote.

    Raises:
        FatalError: the text is not a position.
    """
    lsn, _, ordinal = text.partition("#")
    try:
        return Position(Lsn.parse(lsn), int(ordinal))
    except ValueError as error:
        raise FatalError(f"{text!r} is not a position") from error
