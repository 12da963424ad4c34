"""One captured table, and the ClickHouse tables for its rows.

Pure. Epochs and pauses belong to the whole pipeline: their tables are in `Settings`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outhaul.sink.settings.tree import Settings

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Outbox:
    """One captured table; `settings` are those of its pipeline.

    `table` is `schema.table` in Postgres, without quotes; `clickhouse_table` holds its events.
    """

    table: str
    clickhouse_table: str
    settings: Settings = field(repr=False, hash=False)

    @property
    def dead_letters_table(self) -> str:
        """ClickHouse table for rows that cannot be stored as they are."""
        return f"{self.clickhouse_table}_dead_letters"

    @property
    def sql_table(self) -> str:
        """The table's name for a statement: in quotes where Postgres would fold it to another."""
        parts = self.table.split(".")
        return ".".join(part if _PLAIN.fullmatch(part) else f'"{part}"' for part in parts)
