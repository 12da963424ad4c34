"""Batch -> one trace over dispatch, task and insert, and links to the traces of the apps that wrote its events.

Edge: sentry-sdk. The id of the trace is the token of the batch. So all dispatches and attempts of a batch are in one
trace, and the token in a log line leads to the trace. The token also determines whether a batch is traced: the reader
and the workers need not agree on it. The SDK's integration sends its headers in the Celery message, beside outhaul's
part.

Source: https://docs.sentry.io/platforms/python/tracing/instrumentation/custom-instrumentation/queues-module/
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from outhaul.sink.lanes import COPY
from outhaul.sink.telemetry.sentry.producer_traces import Producer, producers_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.sink.batch import Message

_rate: float | None = None


def begin(rate: float) -> None:
    """Start to trace this share of all batches, from 0 to 1."""
    global _rate  # noqa: PLW0603 - one client a process, as in the SDK
    _rate = rate


def is_followed(token: str, rate: float) -> bool:
    """Tell whether the batch with this token is in the share that is traced."""
    return int(token[:8], 16) < rate * (1 << 32)


@contextmanager
def dispatch(message: Message) -> Iterator[None]:
    """Trace the dispatch of a batch; if it is not sampled, the message's headers tell the worker so."""
    if _rate is None:
        yield
        return
    import sentry_sdk

    with sentry_sdk.start_transaction(
        op="queue.publish",
        name="outhaul.dispatch",
        trace_id=message.token,
        sampled=is_followed(message.token, _rate),
    ) as transaction:
        _describe(transaction, message)
        yield


def begun(message: Message) -> None:
    """Add the batch to the trace of the current task."""
    if (transaction := _followed()) is not None:
        _describe(transaction, message)


@contextmanager
def span(op: str, name: str, **data: str | int) -> Iterator[None]:
    """Trace one step, if the current task or dispatch is traced; `__` in a name of `data` becomes a dot."""
    if _followed() is None:
        yield
        return
    import sentry_sdk

    with sentry_sdk.start_span(op=op, name=name) as step:
        for key, value in data.items():
            step.set_data(key.replace("__", "."), value)
        yield


def stored(message: Message, payload: bytes) -> None:
    """Add to the apps' traces that their events are stored, and add the ids of these traces to the batch's trace."""
    transaction = _followed()
    if transaction is None or message.lane == COPY:
        return
    producers: list[Producer] = []
    # The rows are stored: an error here must not look like a failed insert.
    with suppress(pa.ArrowException):
        producers = producers_of(payload)
    if not producers:
        return
    import sentry_sdk

    transaction.set_data("outhaul.producer_trace_ids", [producer.trace_id for producer in producers])
    for producer in producers:
        with sentry_sdk.start_transaction(
            op="queue.process",
            name="stored in ClickHouse",
            trace_id=producer.trace_id,
            parent_span_id=producer.span_id,
            sampled=True,
        ) as linked:
            _describe(linked, message)
            linked.set_data("outhaul.batch_trace_id", transaction.trace_id)


def _followed() -> Any | None:
    """Return the current transaction, if it will be sent."""
    if not _rate:
        return None
    import sentry_sdk

    transaction = sentry_sdk.get_current_scope().transaction
    return transaction if transaction is not None and transaction.sampled else None


def _describe(transaction: Any, message: Message) -> None:
    for name, value in (("source", message.source), ("epoch", message.epoch), ("batch", message.sequence)):
        transaction.set_tag(f"outhaul.{name}", str(value))
    transaction.set_tag("outhaul.token", message.token)
    transaction.set_data("messaging.message.body.size", message.size_bytes)
    for name in ("rows", "first", "last", "attempt", "table"):
        transaction.set_data(f"outhaul.{name}", getattr(message, name))
