"""An outbox without an integer id is refused before the first event, since ClickHouse would refuse each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from outhaul.cdc_reader.postgres.preflight import check_postgres
from outhaul.sink.errors import Exit, FatalError

if TYPE_CHECKING:
    from tests.conftest import World


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("ALTER id DROP DEFAULT, ALTER id TYPE uuid USING gen_random_uuid()", "is uuid"),
        ("ALTER id TYPE numeric", "is numeric"),
        ("DROP id", "does not exist"),
    ],
)
def test_a_reader_does_not_start_on_an_outbox_without_an_integer_id(world: World, change: str, found: str) -> None:
    world.conn.execute(f"ALTER TABLE outbox {change}".encode())
    with pytest.raises(FatalError, match=f"its column id {found}") as refused:
        check_postgres(world.stream)
    assert refused.value.exit_code is Exit.TABLE_MISSING
    assert "bigint" in refused.value.todo


@pytest.mark.parametrize("kind", ["smallint", "integer", "bigint"])
def test_an_integer_of_any_size_will_do(world: World, kind: str) -> None:
    world.conn.execute(f"ALTER TABLE outbox ALTER id TYPE {kind}".encode())
    check_postgres(world.stream)
