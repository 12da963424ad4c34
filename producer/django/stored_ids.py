"""Ids of events -> the ids that ClickHouse has stored.

Edge: one query to ClickHouse for each page of the admin. If ClickHouse does not answer, the page waits two seconds. The
driver, clickhouse-connect, is imported by the first query: a project without OUTHAUL_CLICKHOUSE_URL does not need it.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from outhaul.django.conf import clickhouse

if TYPE_CHECKING:
    from collections.abc import Iterable

_TIMEOUT_S = 2


def has_driver() -> bool:
    """Return whether clickhouse-connect is installed."""
    return find_spec("clickhouse_connect") is not None


def stored_ids(ids: Iterable[int]) -> set[int] | None:
    """Return the ids that are stored; None if OUTHAUL_CLICKHOUSE_URL is not set, or ClickHouse does not answer."""
    address = clickhouse()
    if address is None or not has_driver():
        return None
    import clickhouse_connect  # noqa: PLC0415 - see above
    from clickhouse_connect.driver.exceptions import ClickHouseError  # noqa: PLC0415

    url, table = address
    try:
        client = clickhouse_connect.get_client(
            dsn=url, connect_timeout=_TIMEOUT_S, send_receive_timeout=_TIMEOUT_S, query_retries=0
        )
        try:
            query = "SELECT DISTINCT id FROM {table:Identifier} WHERE id IN {ids:Array(Int64)}"
            rows = client.query(query, parameters={"table": table, "ids": list(ids)}).result_rows
        finally:
            client.close()
    except (ClickHouseError, OSError):
        return None
    return {int(row[0]) for row in rows}
