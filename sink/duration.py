"""`7d`, `90m`, `1h30m` -> seconds.

Pure.
"""

from __future__ import annotations

import re

from outhaul.sink.errors import Exit, FatalError

FORM = r"(?:[0-9]{1,9}[smhdw])+"

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def seconds(text: str) -> int:
    """Read a duration.

    Raises:
        FatalError: it is none.
    """
    if not re.fullmatch(FORM, text):
        raise FatalError(
            f"{text!r} is no duration", todo="Write a number and s, m, h, d or w: 7d", exit_code=Exit.USAGE
        )
    return sum(int(number) * _UNITS_S[unit] for number, unit in re.findall(r"([0-9]+)([smhdw])", text))
