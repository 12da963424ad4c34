"""outbox and event_log -> the numbers of committed, stored, missing and duplicated events.

Edge: reads all ids from Postgres and from ClickHouse, without FINAL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import psycopg

if TYPE_CHECKING:
    from outhaul.sink.clickhouse import ClickHouse


@dataclass(frozen=True, slots=True)
class Counts:
    """The result of comparing both tables by id.

    `duplicated` counts the copies beyond the first of each id, `extra` the ids that are not in the outbox.
    """

    committed: int
    stored: int
    missing: int
    duplicated: int
    extra: int


def count(dsn: str, clickhouse: ClickHouse) -> Counts:
    """Compare the tables; nothing must write to them meanwhile.

    Raises:
        psycopg.Error: the query to Postgres failed.
        PipelineError: the query to ClickHouse failed.
    """
    with psycopg.connect(dsn) as conn, conn.cursor(binary=True) as cursor:
        committed = np.array([row[0] for row in cursor.execute("SELECT id FROM outbox")], np.int64)
    # ClickHouse returns each id once, with its count, so duplicates do not enlarge the result.
    stored = clickhouse.arrow("SELECT id, count() AS copies FROM event_log GROUP BY id")
    ids, copies = stored.column("id").to_numpy(), stored.column("copies").to_numpy().astype(np.int64)
    return Counts(
        committed=len(committed),
        stored=int(copies.sum()),
        missing=len(np.setdiff1d(committed, ids)),
        duplicated=int((copies - 1).sum()),
        extra=len(np.setdiff1d(ids, committed)),
    )
