"""Files of `sql/` are those that are named in the code, each of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from outhaul.django import ddl
from outhaul.sink import sql

ROOT = Path(__file__).parents[2]


def lying_in(folder: str) -> list[str]:
    return sorted(f"{folder}/{path.name}" for path in (ROOT / "sql" / folder).glob("*.sql"))


@pytest.mark.parametrize("folder", ["postgres", "clickhouse", "clickhouse/cluster"])
def test_setup_applies_each_file_of_a_folder_in_order(folder: str) -> None:
    assert list(sql.names(folder)) == lying_in(folder)


def test_every_folder_with_files_is_either_applied_or_asked_for_by_name() -> None:
    folders = {str(path.parent.relative_to(ROOT / "sql")) for path in (ROOT / "sql").rglob("*.sql")}
    assert folders == {"postgres", "clickhouse", "clickhouse/cluster", "clickhouse/queries", "clickhouse/users"}


def test_every_query_is_asked_for_by_its_name() -> None:
    sources = [path for folder in ("cdc_reader", "sink", "deploy", "tests") for path in (ROOT / folder).rglob("*.py")]
    code = "\n".join(path.read_text() for path in sources)
    unused = [path.stem for path in (ROOT / "sql/clickhouse/queries").glob("*.sql") if f'"{path.stem}"' not in code]
    assert unused == []


def test_the_migration_has_all_but_the_slot_and_the_number() -> None:
    applied = {Path(name).stem for name in sql.names("postgres")}
    assert applied - set(ddl.FILES) == {"0003_slot", "9999_schema_number"}
    assert list(ddl.FILES) == sorted(applied & set(ddl.FILES))
