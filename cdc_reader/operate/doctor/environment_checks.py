"""Environment variables -> findings about those that change how outhaul connects, beside its own settings.

Edge: the environment, for names only. libpq takes what a DSN leaves open from variables, and ClickHouse's driver goes
through the proxy that a variable names. Both are meant for all programs of an environment, so they have effect; an
operator who does not expect it finds them here.

Source: https://www.postgresql.org/docs/current/libpq-envars.html
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from clickhouse_connect.driver.httputil import check_env_proxy

from outhaul.cdc_reader.operate.doctor.finding import Finding, fine
from outhaul.cdc_reader.postgres.login import variables_in_effect
from outhaul.sink.errors import PipelineError
from outhaul.sink.redis_url import split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.sink.settings import Settings


def judge(settings: Settings) -> Iterator[Finding]:
    """Name the variables that have effect; none, if only OUTHAUL_* variables have."""
    for name, dsn in (("OUTHAUL_POSTGRES_DSN", settings.postgres_dsn), ("OUTHAUL_STREAM_DSN", settings.stream_dsn)):
        if dsn.get_secret_value() and (found := _of_libpq(dsn.get_secret_value())):
            yield fine("libpq", f"{', '.join(found)}: libpq takes from them what {name} leaves open")
    url = split(settings.clickhouse_url.get_secret_value())
    if check_env_proxy(url.scheme, url.hostname or "", url.port or 0):
        name = f"{url.scheme}_proxy"
        name = name if os.environ.get(name) else name.upper()
        yield fine("proxy", f"{name}: ClickHouse is reached through this proxy; to exclude it, set NO_PROXY")


def _of_libpq(dsn: str) -> tuple[str, ...]:
    try:
        return variables_in_effect(dsn)
    except PipelineError:
        # The checks of Postgres report a malformed DSN.
        return ()
