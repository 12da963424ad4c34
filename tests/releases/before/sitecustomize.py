"""Messages as the release before wrote them: of one outbox, without `branch`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from outhaul.sink.batch import MESSAGE_VERSION, Message
from outhaul.sink.letters.retry_message import ORDER_VERSION, Order

_order = Order.to_json


def _message_json(self: Message) -> dict[str, Any]:
    data = asdict(self) | {"version": MESSAGE_VERSION - 1}
    del data["branch"]
    return data


def _order_json(self: Order) -> dict[str, Any]:
    data = _order(self) | {"version": ORDER_VERSION - 1}
    del data["branch"]
    return data


Message.to_json = _message_json  # type: ignore[method-assign]
Order.to_json = _order_json  # type: ignore[method-assign]
