"""Batch -> payload in Redis by its key, then one small Celery message with that key.

Edge: the broker. The payload is written first, so that a task never starts before its rows are in Redis. If a payload
has expired or was evicted, the worker reports it missing, and the reader sends it again. The task is sent by its name:
the reader does not import the worker's code.

Source: https://docs.celeryq.dev/en/stable/userguide/calling.html
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from outhaul.cdc_reader.capture.type_fit import check_fit
from outhaul.cdc_reader.postgres.column_defaults import values_before
from outhaul.cdc_reader.postgres.connect import connect_primary
from outhaul.sink.errors import Exit, FatalError, TransientError
from outhaul.sink.failpoint import reach
from outhaul.sink.lanes import fence
from outhaul.sink.redis_keys import epoch_key
from outhaul.sink.schema import column_type, ensure_columns
from outhaul.sink.task_names import WRITE_BATCH
from outhaul.sink.telemetry.sentry import trace

if TYPE_CHECKING:
    from outhaul.cdc_reader.capture.assemble import Assembled
    from outhaul.sink.app import SinkApp
    from outhaul.sink.batch import Batch, Message
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.redis.payloads import Payloads
    from outhaul.sink.settings import Settings


class Dispatcher:
    """Sends batches of one epoch; for one thread."""

    def __init__(self, app: SinkApp, payloads: Payloads, clickhouse: ClickHouse, lane: str) -> None:
        """Keep the clients; no connection is opened yet. `lane` is the lane of the rows."""
        self._lane = lane
        self._app = app
        self._payloads = payloads
        self._clickhouse = clickhouse
        self._known: set[tuple[str, tuple[tuple[str, str], ...]]] = set()

    @property
    def _settings(self) -> Settings:
        return self._app.settings

    def announce_epoch(self, epoch: int) -> None:
        """Copy the epoch to Redis, so that tasks of older epochs end without asking ClickHouse.

        Raises:
            TransientError: Redis did not store it.
        """
        self._payloads.set(epoch_key(fence(self._settings.source, self._lane)), str(epoch))

    def send(self, message: Message, assembled: Assembled) -> None:
        """Send a batch; before that, add the columns that its table lacks.

        Raises:
            TransientError: Redis or ClickHouse did not answer. Send the batch again: a batch sent twice is stored once.
            FatalError: ClickHouse refuses a new column, or a column has become too small for the outbox's column; or
                Redis takes no value of the batch's size.
        """
        self._ensure_columns(message.table, assembled)
        reach("dispatch.begin")
        try:
            with trace.dispatch(message):
                with trace.span("db.redis", "payload"):
                    self._put(message, assembled.batch)
                reach("dispatch.payload")
                self._app.send(WRITE_BATCH, message.to_json(), task_id=message.task_id, summary=message.summary)
        except TransientError:
            # If Redis is full, a payload without a message must not take its memory.
            with suppress(TransientError):
                self._payloads.drop([message.payload_key])
            raise
        reach("dispatch.sent")

    def _put(self, message: Message, batch: Batch) -> None:
        try:
            self._payloads.put(message.payload_key, batch.payload)
        except FatalError as error:
            if error.exit_code is not Exit.REDIS_REFUSED:
                raise
            raise FatalError(
                f"{error.message}, as {_named(batch)} needs", todo=error.todo, exit_code=error.exit_code
            ) from error

    def _ensure_columns(self, table: str, assembled: Assembled) -> None:
        schema = assembled.schema
        if schema is None:
            return
        key = table, tuple((field.name, column_type(field)) for field in schema)
        if key not in self._known:
            first_lsn = int(assembled.batch.first.lsn)
            values = partial(self._values_before, table)
            present = ensure_columns(self._clickhouse, table, schema, values, first_lsn)
            check_fit(table, schema, present)
            self._known.add(key)

    def _values_before(self, table: str, columns: list[str], stored: list[str]) -> dict[str, str]:
        outbox = self._settings.outbox_into(table)
        if outbox is None:
            return {}
        with connect_primary(self._settings) as conn:
            return values_before(conn, outbox.sql_table, columns, stored)


def _named(batch: Batch) -> str:
    """Return which events a batch has, for a message."""
    with pa.ipc.open_stream(batch.payload) as stream:
        table = stream.read_all()
    # A row whose id could not be read has none.
    ids = table.column("id").to_pylist() if "id" in table.column_names else []
    where = f"at position {batch.first} for {batch.table}"
    if batch.rows == 1:
        return f"the event {where}" + (f", id {ids[0]}" if ids else "")
    return f"the batch of {batch.rows} events {where}" + (f", ids {ids[0]} to {ids[-1]}" if ids else "")
