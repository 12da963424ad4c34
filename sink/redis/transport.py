"""Items of the queue's Redis list -> Celery's consumer, or refused: what is not one of our messages does not reach it.

Edge: kombu's Redis transport, with a check at its door. Celery reads what it gets in its event loop and in its pool's
callbacks, where an item it stumbles over ends the worker or keeps one of its few slots for ever; and one that was noted
as unacked by then comes back to do so again.

Source: https://docs.celeryq.dev/en/stable/internals/protocol.html
"""

from __future__ import annotations

from queue import Empty
from typing import TYPE_CHECKING, Any

import redis
import structlog
from celery.signals import task_rejected
from kombu.transport import redis as kombu_redis

from outhaul.sink.errors import ForeignMessageError
from outhaul.sink.redis import topology
from outhaul.sink.redis.connection import connection_options
from outhaul.sink.task_names import ALL_TASKS
from outhaul.sink.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger("outhaul.sink")

# The connection's own errors; Celery knows what to do about them.
_PASSED = (Empty, OSError, redis.ConnectionError, redis.TimeoutError, redis.ResponseError)
_OUR_QUEUES = "outhaul."
# Ours have about 500 bytes.
_MAX_BODY_BYTES = 64 << 10
_MAX_NUMBER = 1 << 31
_UNUSED_HEADERS = ("expires", "shadow", "group", "group_index", "stamped_headers", "stamps", "compression")
_SHOWN_CHARACTERS = 200


class QoS(kombu_redis.QoS):
    """Brings back what was not acknowledged in time; an entry that cannot be read is dropped."""

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """Put one message back on the queue, as kombu does; also called when a worker starts."""
        try:
            super().restore_by_tag(tag, client, leftmost)  # type: ignore[no-untyped-call]
        except _PASSED:
            raise
        except Exception as error:  # noqa: BLE001 - the outermost line for an entry
            with self.channel.conn_or_acquire(client) as connection:
                connection.zrem(self.unacked_index_key, tag)
                connection.hdel(self.unacked_key, tag)
            _refuse(error)


class Channel(kombu_redis.Channel):
    """Reads the list and lets our messages through; the others are dropped."""

    QoS = QoS
    from_transport_options = (*kombu_redis.Channel.from_transport_options, "places")  # type: ignore[assignment]
    # The name of those that are asked for the server before each connection; none where the URL says which it is.
    places = ""

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if self.connection.client is None:
            # Celery closes a connection that broke a second time, and its worker ends by what is no connection's error.
            raise redis.ConnectionError("the channel's connection has been closed")
        if not self.places:
            return dict(super()._connparams(asynchronous))  # type: ignore[no-untyped-call]
        options = connection_options(topology.named(self.places))
        # kombu makes a class of its own out of this one, which must stay.
        self.connection_class = self.connection_class_ssl = options.pop("connection_class")
        return dict(super()._connparams(asynchronous)) | options | {"stays": asynchronous}  # type: ignore[no-untyped-call]

    def _has_queue(self, queue: str, **_: Any) -> bool:
        # kombu asks by EXISTS, to which it does not add the prefix that keys have in a cluster.
        return bool(self._size(queue))  # type: ignore[no-untyped-call]

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[Any], Any], consumer_tag: str, **kwargs: Any
    ) -> None:
        """Consume from a queue, as kombu does."""

        def guarded(message: Any) -> Any:
            try:
                # Remote control and its replies come by other queues; they are Celery's own.
                if queue.startswith(_OUR_QUEUES):
                    check(message)
                return callback(message)
            except _PASSED:
                raise
            except Exception as error:  # noqa: BLE001 - the outermost line for a message
                if not message.acknowledged:
                    message.reject()
                _refuse(error)

        super().basic_consume(queue, no_ack, guarded, consumer_tag, **kwargs)  # type: ignore[no-untyped-call]

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (ValueError, RecursionError) as error:
            _refuse(error)
            return True


class Transport(kombu_redis.Transport):
    """Hands items to the channel's consumer; one that is no envelope at all is dropped."""

    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        try:
            super()._deliver(message, queue)  # type: ignore[no-untyped-call]
        except _PASSED:
            raise
        except Exception as error:  # noqa: BLE001 - the outermost line for an item
            _refuse(error)


def check(message: Any) -> None:
    """Check that a message is a call of a task of ours as Celery writes it; its arguments are for the task to check.

    Raises:
        ForeignMessageError: it is not.
        Exception: its body cannot be read.
    """
    match message.headers:
        case {"task": str(task), "id": str(), "retries": int(retries), "timelimit": [None, None]} as headers:
            known = (
                task in ALL_TASKS
                and 0 <= retries < _MAX_NUMBER
                and not any(headers.get(name) for name in _UNUSED_HEADERS)
            )
        case _:
            known = False
    if not known or message.content_type != "application/json" or not isinstance(message.delivery_info, dict):
        raise ForeignMessageError("a message that is no call of a task of ours was received")
    if len(message.body) > _MAX_BODY_BYTES:
        raise ForeignMessageError(f"a message of {len(message.body)} bytes was received")
    match message.payload:
        case [list(), dict(), dict() as embedded] if not any(embedded.values()):
            pass
        case _:
            raise ForeignMessageError("a message with another body than ours was received")


def _refuse(error: Exception) -> None:
    metrics.refused()
    log.warning("message_refused", error=f"{type(error).__name__}: {error}"[:_SHOWN_CHARACTERS])


@task_rejected.connect  # type: ignore[untyped-decorator] # celery has no types
def _count(**_: object) -> None:
    # Celery has said which message and why.
    metrics.refused()
