"""Items of the queue's Redis list -> outhaul's messages, given to Celery's consumer; all other items are refused.

Edge: kombu's Redis transport, with a check before delivery. Celery reads items in its event loop and in callbacks of
its pool. There, an item that it cannot read ends the worker, or occupies one of its few slots forever. If kombu has
already recorded the item as unacknowledged, it delivers it again, with the same effect.

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
from outhaul.sink.redis.connection import remembered
from outhaul.sink.task_names import ALL_TASKS
from outhaul.sink.telemetry import metrics, unexpected

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger("outhaul.sink")

# Errors of the connection; Celery handles them.
_CONNECTION_ERRORS = (Empty, OSError, redis.ConnectionError, redis.TimeoutError, redis.ResponseError)
# Arguments of a connection over TCP that one to a Unix socket does not take.
_NOT_OF_SOCKETS = ("host", "port", "socket_keepalive", "socket_keepalive_options")
_OUR_QUEUES = "outhaul."
# Outhaul's messages have about 500 bytes.
_MAX_BODY_BYTES = 64 << 10
_MAX_NUMBER = 1 << 31
_UNUSED_HEADERS = ("expires", "shadow", "group", "group_index", "stamped_headers", "stamps", "compression")
_SHOWN_CHARACTERS = 200


class QoS(kombu_redis.QoS):
    """Restores messages that were not acknowledged in time; drops entries that it cannot read."""

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """Put one message back on the queue, as kombu does; kombu also calls this when a worker starts."""
        try:
            super().restore_by_tag(tag, client, leftmost)  # type: ignore[no-untyped-call]
        except _CONNECTION_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - the outermost line for an entry
            with self.channel.conn_or_acquire(client) as connection:
                connection.zrem(self.unacked_index_key, tag)
                connection.hdel(self.unacked_key, tag)
            _refuse(error)


class Channel(kombu_redis.Channel):
    """Reads the list, and passes on outhaul's messages; drops all other items."""

    QoS = QoS
    from_transport_options = (*kombu_redis.Channel.from_transport_options, "server")  # type: ignore[assignment]
    # Name of the arguments for connections, which the app has made: kombu reads a URL in another way than redis-py.
    server = ""

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if self.connection.client is None:
            # Celery closes a broken connection a second time, and an error of another class would end its worker.
            raise redis.ConnectionError("the channel's connection has been closed")
        options = remembered(self.server)
        # kombu derives its own connection class from this one. The pop keeps `options` from overwriting that class.
        kind: Any = options.pop("connection_class", redis.Connection)
        self.connection_class = self.connection_class_ssl = kind
        params = dict(super()._connparams(asynchronous))  # type: ignore[no-untyped-call]
        if "places" in options:
            options["in_event_loop"] = asynchronous
        if "path" in options:
            for name in _NOT_OF_SOCKETS:
                params.pop(name, None)
        return params | options

    def _has_queue(self, queue: str, **_: Any) -> bool:
        # kombu uses EXISTS, and does not add the prefix of the keys to it.
        return bool(self._size(queue))  # type: ignore[no-untyped-call]

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[Any], Any], consumer_tag: str, **kwargs: Any
    ) -> None:
        """Consume from a queue, as kombu does."""

        def guarded(message: Any) -> Any:
            is_ours = False
            try:
                # Other queues carry Celery's own remote control and its replies.
                if queue.startswith(_OUR_QUEUES):
                    check(message)
                    is_ours = True
                return callback(message)
            except _CONNECTION_ERRORS:
                raise
            except Exception as error:  # noqa: BLE001 - the outermost line for a message
                if not message.acknowledged:
                    message.reject()
                _refuse(error)
                if is_ours and unexpected.is_unexpected(error):
                    unexpected.note(error)

        super().basic_consume(queue, no_ack, guarded, consumer_tag, **kwargs)  # type: ignore[no-untyped-call]

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (ValueError, RecursionError) as error:
            _refuse(error)
            return True


class Transport(kombu_redis.Transport):
    """Delivers items to the channel's consumer; drops an item that is not an envelope of kombu."""

    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        try:
            super()._deliver(message, queue)  # type: ignore[no-untyped-call]
        except _CONNECTION_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - the outermost line for an item
            _refuse(error)


def check(message: Any) -> None:
    """Check that a message is a call of one of outhaul's tasks, as Celery writes it; the task checks the arguments.

    Raises:
        ForeignMessageError: it is not such a call.
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
        raise ForeignMessageError("a message that does not call one of outhaul's tasks was received")
    if len(message.body) > _MAX_BODY_BYTES:
        raise ForeignMessageError(f"a message of {len(message.body)} bytes was received")
    match message.payload:
        case [list(), dict(), dict() as embedded] if not any(embedded.values()):
            pass
        case _:
            raise ForeignMessageError("a message with an unexpected body was received")


def _refuse(error: Exception) -> None:
    metrics.refused()
    log.warning("message_refused", error=f"{type(error).__name__}: {error}"[:_SHOWN_CHARACTERS])


@task_rejected.connect  # type: ignore[untyped-decorator] # celery has no types
def _count(**_: object) -> None:
    # Celery has logged the message and the reason.
    metrics.refused()
