"""Ids of events -> those that ClickHouse holds.

Edge: ClickHouse, asked once for a page of the admin; where it does not answer, the page waits two seconds and no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError

from outhaul.django.conf import clickhouse

if TYPE_CHECKING:
    from collections.abc import Iterable

_TIMEOUT_S = 2


def stored_ids(ids: Iterable[int]) -> set[int] | None:
    """Return which of the ids are stored; None where the project names no ClickHouse, or it does not answer."""
    there = clickhouse()
    if there is None:
        return None
    url, table = there
    try:
        client = clickhouse_connect.get_client(
            dsn=url, connect_timeout=_TIMEOUT_S, send_receive_timeout=_TIMEOUT_S, query_retries=0
        )
        try:
            asked = "SELECT DISTINCT id FROM {table:Identifier} WHERE id IN {ids:Array(Int64)}"
            rows = client.query(asked, parameters={"table": table, "ids": list(ids)}).result_rows
        finally:
            client.close()
    except (ClickHouseError, OSError):
        return None
    return {int(row[0]) for row in rows}
