"""Message or report line -> the same with a seal; with a seal -> the same without it, if the seal is valid.

Pure. With a key, every call of a task and every report has an HMAC-SHA256 of its contents: the seal. A message without
a valid seal is refused unread. A batch's message contains its token, and the token depends on a hash of the payload,
which a worker compares in any case. So a seal of some 400 bytes covers a payload of megabytes, and costs a few
microseconds for a payload of any size.

A seal proves who wrote a message, not when. Fence and token make a replayed message harmless. Each seal is made for one
place (the name of a task, the key of a list), and is valid in no other place.

Source: https://docs.python.org/3/library/hmac.html
"""

from __future__ import annotations

import hmac
import json
from typing import TYPE_CHECKING, Any

from outhaul.sink.errors import ForeignMessageError

if TYPE_CHECKING:
    from outhaul.sink.settings import Settings

FIELD = "seal"
_TODO = (
    "Give reader, workers and commands the same OUTHAUL_MESSAGE_KEY; if they have it, find out who else writes to Redis"
)


class ForgedMessageError(ForeignMessageError):
    """A message whose writer does not have the key, or that was written for another place."""


class Seal:
    """Seals messages, and opens sealed messages, with one key; without a key, it changes and checks nothing."""

    def __init__(self, key: str) -> None:
        """Keep the key; an empty text means no key."""
        self._key = key.encode()

    def message(self, task: str, argument: dict[str, Any]) -> dict[str, Any]:
        """Return a task's argument with its seal."""
        return argument | {FIELD: self._digest(task, _canonical(argument))} if self._key else argument

    def opened(self, task: str, argument: object) -> object:
        """Return the argument that was given to `message`.

        Raises:
            ForgedMessageError: the argument is not sealed with this key, or is sealed although no key is set.
        """
        sealed = isinstance(argument, dict) and FIELD in argument
        if not self._key and not sealed:
            return argument
        if not self._key or not isinstance(argument, dict) or not sealed:
            message = (
                "a sealed message was received, but this worker has no key"
                if sealed
                else "a message without a seal was received"
            )
            raise ForgedMessageError(message, todo=_TODO)
        bare = {name: value for name, value in argument.items() if name != FIELD}
        try:
            valid = self._is_valid(argument[FIELD], task, _canonical(bare))
        except RecursionError:
            valid = False
        if not valid:
            raise ForgedMessageError("a message with an invalid seal was received", todo=_TODO)
        return bare

    def line(self, list_key: str, line: str) -> str:
        """Return a line for a list in Redis, preceded by its seal."""
        return f"{self._digest(list_key, line.encode())} {line}" if self._key else line

    def opened_line(self, list_key: str, line: bytes) -> bytes | None:
        """Return the line that was given to `line`; None if it is not sealed with this key for this list."""
        if not self._key:
            return line
        seal, _, bare = line.partition(b" ")
        return bare if self._is_valid(seal.decode(errors="replace"), list_key, bare) else None

    def _digest(self, place: str, content: bytes) -> str:
        # The length separates place and content: without it, two different pairs could have the same digest.
        return hmac.digest(self._key, b"%d %b %b" % (len(place.encode()), place.encode(), content), "sha256").hex()

    def _is_valid(self, seal: object, place: str, content: bytes) -> bool:
        given = str(seal).encode(errors="replace")
        return hmac.compare_digest(given, self._digest(place, content).encode())


def seal_of(settings: Settings) -> Seal:
    """Return the `Seal` with the key of these settings."""
    return Seal(settings.message_key.get_secret_value())


def _canonical(argument: dict[str, Any]) -> bytes:
    # One form of the JSON: Celery may have written the same argument in another order or with other spaces.
    return json.dumps(argument, sort_keys=True, separators=(",", ":")).encode()
