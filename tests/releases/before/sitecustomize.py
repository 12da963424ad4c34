"""Messages as the release before wrote them: of one outbox, without `branch`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from outhaul.sink.batch import MESSAGE_VERSION, Message
from outhaul.sink.letters.retry_message import RETRY_MESSAGE_VERSION, RetryMessage

_order = RetryMessage.to_json


def _message_json(self: Message) -> dict[str, Any]:
    data = asdict(self) | {"version": MESSAGE_VERSION - 1}
    del data["branch"]
    return data


def _order_json(self: RetryMessage) -> dict[str, Any]:
    data = _order(self) | {"version": RETRY_MESSAGE_VERSION - 1}
    del data["branch"]
    return data


Message.to_json = _message_json  # type: ignore[method-assign]
RetryMessage.to_json = _order_json  # type: ignore[method-assign]
