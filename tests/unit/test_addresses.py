"""A DSN or a URL that a driver would not take, or would take in another way, is refused at the start in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import conninfo_to_dict

from outhaul.cdc_reader.postgres.login import connect_replication, conninfo
from outhaul.cdc_reader.postgres.query import connect
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import Exit, FatalError, PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "hunter2"


@pytest.mark.parametrize("attempt", [connect, connect_replication])
@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        (f"postgresql://me:{SECRET}%zz@127.0.0.1:1/app", "the DSN is malformed"),
        ("postgresql://127.0.0.1:1/app?sslmode=on", "invalid sslmode value"),
        ("postgresql://127.0.0.1:1/app?colour=red", "the DSN is malformed"),
        ("host=127.0.0.1 port=one", "port"),
        ("host=127.0.0.1 port=1 connect_timeout=soon", "connect_timeout"),
        ("host=127.0.0.1,127.0.0.1 port=1,2,3", "could not match 3 port numbers to 2 hosts"),
        ("postgresql://127.0.0.1:1/app?target_session_attrs=best", "target_session_attrs"),
    ],
)
def test_a_dsn_with_a_wrong_value_is_no_server_that_does_not_answer(
    attempt: Callable[[str], object], dsn: str, words: str
) -> None:
    with pytest.raises(PipelineError, match=words) as refused:
        attempt(dsn)
    assert refused.value.exit_code is Exit.SETTINGS
    assert isinstance(refused.value, FatalError)
    assert SECRET not in str(refused.value)
    assert "OUTHAUL_POSTGRES_DSN" in str(refused.value)


def test_a_dsn_cannot_make_an_ordinary_connection_one_of_the_replication_protocol() -> None:
    assert "replication" not in conninfo_to_dict(conninfo("postgresql://db/app?replication=database"))
    assert conninfo_to_dict(conninfo("dbname=app", replication="database"))["replication"] == "database"


@pytest.mark.parametrize(
    "url",
    [
        "clickhouse://db:9000/logs",
        "http:///logs",
        "http://db:port/logs",
        "http://db:70000/logs",
        f"http://me:{SECRET}#x@db/logs",
        f"http://me:{SECRET}/x@db/logs",
        "http://[db/logs",
        "https://db/logs?verify=false",
        "http://db/logs?secure=true&compress=zstd",
    ],
)
def test_a_url_of_clickhouse_in_another_form_is_refused(url: str) -> None:
    with pytest.raises(FatalError, match="OUTHAUL_CLICKHOUSE_URL") as refused:
        ClickHouse(url, timeout_s=1)
    assert refused.value.exit_code is Exit.SETTINGS
    assert SECRET not in str(refused.value)
