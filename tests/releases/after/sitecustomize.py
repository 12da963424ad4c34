"""Messages as a next release might write and read them: with a field that nobody knows yet."""

from __future__ import annotations

from typing import Any

from outhaul.sink.batch import MESSAGE_VERSION, Message
from outhaul.sink.letters.retry_message import RETRY_MESSAGE_VERSION, RetryMessage

_NEW = "hue"
_message, _read, _order = Message.to_json, Message.from_json.__func__, RetryMessage.to_json  # type: ignore[attr-defined]


def _message_json(self: Message) -> dict[str, Any]:
    return _message(self) | {"version": MESSAGE_VERSION + 1, _NEW: 7}


def _read_message(cls: type[Message], data: object, table: str = "") -> Message:
    if isinstance(data, dict) and data.get("version") == MESSAGE_VERSION + 1:
        data = {name: value for name, value in data.items() if name != _NEW} | {"version": MESSAGE_VERSION}
    read: Message = _read(cls, data, table)
    return read


def _order_json(self: RetryMessage) -> dict[str, Any]:
    return _order(self) | {"version": RETRY_MESSAGE_VERSION + 1, _NEW: 7}


Message.to_json = _message_json  # type: ignore[method-assign]
Message.from_json = classmethod(_read_message)  # type: ignore[assignment, method-assign]
RetryMessage.to_json = _order_json  # type: ignore[method-assign]
