"""Settings -> an open ClickHouse, after a check that both sides have the tables that a command needs.

Edge: Postgres and ClickHouse. A missing table is reported here, before the command has done a part of its work.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from outhaul.cdc_reader.outbox.heal import ASK_TIMEOUT_S
from outhaul.cdc_reader.outbox.table_shape import describe
from outhaul.cdc_reader.postgres.connect import connect_primary
from outhaul.cdc_reader.postgres.preflight import checked_clickhouse
from outhaul.sink import trial

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.settings import Settings


@contextmanager
def both_sides(settings: Settings) -> Iterator[ClickHouse]:
    """Check that each outbox and its ClickHouse tables exist, and that the trials have passed; yield ClickHouse.

    Raises:
        PipelineError: a table is missing, a trial fails, or a server refuses or does not answer.
    """
    with connect_primary(settings) as conn:
        for outbox in settings.outboxes():
            describe(conn, outbox, settings.undivided)
    with checked_clickhouse(settings, ASK_TIMEOUT_S) as clickhouse:
        trial.ensure(clickhouse, settings)
        yield clickhouse
