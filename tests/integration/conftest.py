"""A database with a slot of its own for each test that compares the decoder with Postgres."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import psycopg
import pytest

from outhaul.cdc_reader.postgres import session_settings
from outhaul.cdc_reader.postgres.login import conninfo
from tests.integration.postgres_oracle import Oracle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.deploy.local.stack import Stack

_numbers = itertools.count()


@pytest.fixture
def oracle(stack: Stack) -> Iterator[Oracle]:
    base = stack.env()["OUTHAUL_POSTGRES_DSN"]
    name = f"oracle_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(base, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        dsn = conninfo(base, dbname=name)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(session_settings.statement(conn.info.server_version).encode())
            conn.execute("RESET search_path")
            yield Oracle(conn, dsn, name)
        admin.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [name]
        )
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
