"""Types of settings: what a text must look like, and who changes a setting.

Pure.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from outhaul.sink import quantities

_NAME = re.compile(r"[a-z0-9_]{1,63}")


class Tier(StrEnum):
    """Who changes a setting."""

    ESSENTIAL = "essential"
    USEFUL = "useful"
    REST = "leave alone"


ESSENTIAL: dict[str, Any] = {"tier": Tier.ESSENTIAL}
USEFUL: dict[str, Any] = {"tier": Tier.USEFUL}


def derived(rule: str) -> dict[str, Any]:
    """Return the metadata of a setting whose default follows from another one, by a rule in words."""
    return {"derived": rule}


def _seconds(value: object) -> object:
    return quantities.seconds(value) if isinstance(value, str) else value


def _age(value: object) -> object:
    return quantities.age(value) if isinstance(value, str) and value else value if value != "" else None


def _bytes(value: object) -> object:
    return quantities.size_bytes(value) if isinstance(value, str) else value


def _plain(value: str) -> str:
    # Replication commands cannot bind parameters, so these names go into their text as they are.
    if not _NAME.fullmatch(value):
        raise ValueError("use lower-case letters, digits and underscores, at most 63")
    return value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]
Age = Annotated[Annotated[float, Field(ge=0)] | None, BeforeValidator(_age)]
Bytes = Annotated[int, BeforeValidator(_bytes)]
Name = Annotated[str, AfterValidator(_plain)]
PostgresTable = Annotated[str, StringConstraints(pattern=r"""^[^.'"\\$%\s]+\.[^.'"\\$%\s]+$""")]
