"""Types of settings: what a text must look like, and who changes a setting.

Pure.
"""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from outhaul.sink import quantities
from outhaul.sink.quoting import join_name, split_name

_NAME = re.compile(r"[a-z0-9_]{1,63}")
# Postgres cuts a longer name off.
_LONGEST_BYTES = 63
# Control characters, and halves of characters: bytes of the environment that are not UTF-8.
_NOT_TEXT = {"Cc", "Cs"}


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


def _named(value: str) -> str:
    if not value:
        raise ValueError("use a name of at least one character")
    if len(value.encode(errors="replace")) > _LONGEST_BYTES:
        raise ValueError(f"use at most {_LONGEST_BYTES} bytes")
    if any(unicodedata.category(character) in _NOT_TEXT for character in value):
        raise ValueError("use a name without control characters")
    return value


def _table(value: str) -> str:
    try:
        parts = split_name(value)
    except ValueError:
        parts = ()
    if len(parts) != 2:  # noqa: PLR2004 - schema and table
        raise ValueError('write schema.table; a part that has dots or quotes in double quotes: sales."order.outbox"')
    return join_name(*map(_named, parts))


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]
Age = Annotated[Annotated[float, Field(ge=0)] | None, BeforeValidator(_age)]
Bytes = Annotated[int, BeforeValidator(_bytes)]
Name = Annotated[str, AfterValidator(_plain)]
AnyName = Annotated[str, AfterValidator(_named)]
PostgresTable = Annotated[str, AfterValidator(_table)]
