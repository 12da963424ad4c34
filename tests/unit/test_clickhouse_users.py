"""The ClickHouse user for readers and workers has each right that `doctor` asks for."""

from __future__ import annotations

import re
from pathlib import Path

from outhaul.cdc_reader.operate.doctor import clickhouse_grants
from outhaul.sink import schema
from outhaul.sink.settings import Settings

USER = Path(__file__).parents[2] / "sql/clickhouse/users/pipeline.sql"


def granted() -> set[clickhouse_grants.Right]:
    found = re.findall(r"^GRANT (.+) ON (?:logs\.)?(\S+) TO outhaul_pipeline;$", USER.read_text(), re.MULTILINE)
    return {(privilege, table) for privileges, table in found for privilege in privileges.split(", ")}


def test_the_user_has_every_right_that_the_doctor_asks_for_and_may_drop_nothing() -> None:
    settings = Settings()
    wanted = set(
        clickhouse_grants.wanted(schema.table_names(settings, settings.outboxes()), [settings.clickhouse_table])
    )
    assert wanted <= granted()
    assert not {privilege for privilege, _ in granted()} & {"ALL", "DROP TABLE", "TRUNCATE", "CREATE TABLE", "ALTER"}
