"""outbox and event_log -> how many events are committed, stored, missing, and there more than once.

Edge: asks Postgres and ClickHouse, each for all of its ids; no FINAL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import psycopg

if TYPE_CHECKING:
    from outhaul.sink.clickhouse import ClickHouse


@dataclass(frozen=True, slots=True)
class Counted:
    """Both tables, compared id by id; `duplicated` counts the copies beyond the first, `extra` ids never committed."""

    committed: int
    stored: int
    missing: int
    duplicated: int
    extra: int


def count(dsn: str, clickhouse: ClickHouse) -> Counted:
    """Compare the tables; both should be at rest.

    Raises:
        psycopg.Error: Postgres does not answer.
        PipelineError: ClickHouse does not answer.
    """
    with psycopg.connect(dsn) as conn, conn.cursor(binary=True) as cursor:
        committed = np.array([row[0] for row in cursor.execute("SELECT id FROM outbox")], np.int64)
    # ClickHouse gives each id once with its count, so this stays small however often one is stored.
    stored = clickhouse.arrow("SELECT id, count() AS copies FROM event_log GROUP BY id")
    ids, copies = stored.column("id").to_numpy(), stored.column("copies").to_numpy().astype(np.int64)
    return Counted(
        committed=len(committed),
        stored=int(copies.sum()),
        missing=len(np.setdiff1d(committed, ids)),
        duplicated=int((copies - 1).sum()),
        extra=len(np.setdiff1d(ids, committed)),
    )
