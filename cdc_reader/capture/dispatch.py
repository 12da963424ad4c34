"""Batch -> payload in Redis by its key, then one small Celery message that names it.

Edge: the broker. The payload goes first, so that a task never starts before its rows are there; a message whose
payload expired or was evicted reports it missing and is sent again. The task is named, not imported: readers need
none of the worker's code.

Source: https://docs.celeryq.dev/en/stable/userguide/calling.html
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import kombu.exceptions

from outhaul.cdc_reader.capture.type_fit import check_fit
from outhaul.sink.errors import Exit, TransientError
from outhaul.sink.failpoint import reach
from outhaul.sink.lanes import fence
from outhaul.sink.redis_keys import epoch_key
from outhaul.sink.schema import column_type, ensure_columns
from outhaul.sink.seal import seal_of
from outhaul.sink.task_names import WRITE_BATCH
from outhaul.sink.telemetry.sentry import trace

if TYPE_CHECKING:
    from outhaul.cdc_reader.capture.assemble import Assembled
    from outhaul.sink.app import SinkApp
    from outhaul.sink.batch import Message
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.redis.payloads import Payloads
    from outhaul.sink.settings import Settings


class Dispatcher:
    """Sends batches of one epoch; for one thread."""

    def __init__(self, app: SinkApp, payloads: Payloads, clickhouse: ClickHouse, lane: str) -> None:
        """Keep the connections; nothing is opened yet. `lane` is that of the rows."""
        self._lane = lane
        self._app = app
        self._payloads = payloads
        self._clickhouse = clickhouse
        self._seal = seal_of(app.settings)
        self._known: set[tuple[str, tuple[tuple[str, str], ...]]] = set()

    @property
    def _settings(self) -> Settings:
        return self._app.settings

    def announce_epoch(self, epoch: int) -> None:
        """Mirror the epoch, by which tasks of older ones are spared the trip to ClickHouse.

        Raises:
            TransientError: Redis did not take it.
        """
        self._payloads.set(epoch_key(fence(self._settings.source, self._lane)), str(epoch))

    def send(self, message: Message, assembled: Assembled) -> None:
        """Dispatch a batch; its table has all of its columns by then.

        Raises:
            TransientError: Redis or ClickHouse did not answer; nothing was sent, or perhaps twice, which is harmless.
            FatalError: ClickHouse refuses a new column, or has one that is too small for what the outbox has now.
        """
        self._ensure_columns(message.table, assembled)
        reach("dispatch.begin")
        try:
            with trace.dispatch(message):
                with trace.span("db.redis", "payload"):
                    self._payloads.put(message.payload_key, assembled.batch.payload)
                reach("dispatch.payload")
                self._announce(message)
        except TransientError:
            # Where Redis is full, a payload that no message names must not be what fills it.
            with suppress(TransientError):
                self._payloads.drop([message.payload_key])
            raise
        reach("dispatch.sent")

    def close(self) -> None:
        """Close the connections; the broker's belong to the app, which outlives a session."""
        self._payloads.close()
        self._clickhouse.close()

    def _announce(self, message: Message) -> None:
        try:
            self._app.send_task(
                WRITE_BATCH,
                args=(self._seal.message(WRITE_BATCH, message.to_json()),),
                task_id=message.task_id,
                queue=self._settings.queue,
                argsrepr=message.summary,
                retry=False,
            )
        except (kombu.exceptions.KombuError, OSError) as error:
            raise TransientError(
                f"the broker does not answer ({type(error).__name__})", exit_code=Exit.REDIS_UNREACHABLE
            ) from error

    def _ensure_columns(self, table: str, assembled: Assembled) -> None:
        schema = assembled.schema
        if schema is None:
            return
        key = table, tuple((field.name, column_type(field)) for field in schema)
        if key not in self._known:
            check_fit(table, schema, ensure_columns(self._clickhouse, table, schema))
            self._known.add(key)
