"""What goes through Redis between reader and workers -> the same under a seal, and back if nobody touched it.

Pure. With a key, every call of a task and every report carries an HMAC-SHA256, and what has none, or another, is not
read any further. A batch's message holds its token, and the token the hash of the payload, which a worker compares
anyway: so the seal over some 400 bytes covers all the megabytes, and costs a few microseconds whatever their number.

A seal says who wrote something, not when: what an old message could do again is for fence and token to settle. Each is
made for one place (a task's name, the key of a list), and holds nowhere else.

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
_TODO = "Give reader, workers and commands the same OUTHAUL_MESSAGE_KEY; if they have it, look who else writes to Redis"


class ForgedMessageError(ForeignMessageError):
    """A message that nobody who has the key has written, or not for this place."""


class Seal:
    """Seals and opens by one key; without a key, everything passes as it is."""

    def __init__(self, key: str) -> None:
        """Keep the key; an empty one is none."""
        self._key = key.encode()

    def message(self, task: str, argument: dict[str, Any]) -> dict[str, Any]:
        """Return a task's argument with its seal."""
        return argument | {FIELD: self._of(task, _spell(argument))} if self._key else argument

    def opened(self, task: str, argument: object) -> object:
        """Return what `message` was given.

        Raises:
            ForgedMessageError: it is not sealed by our key, or sealed where we have none.
        """
        sealed = isinstance(argument, dict) and FIELD in argument
        if not self._key and not sealed:
            return argument
        if not self._key or not isinstance(argument, dict) or not sealed:
            what = "with a seal, where this worker has no key," if sealed else "without a seal"
            raise ForgedMessageError(f"a message {what} was received", todo=_TODO)
        bare = {name: value for name, value in argument.items() if name != FIELD}
        try:
            holds = self._holds(argument[FIELD], task, _spell(bare))
        except RecursionError:
            holds = False
        if not holds:
            raise ForgedMessageError("a message whose seal does not hold was received", todo=_TODO)
        return bare

    def line(self, list_key: str, line: str) -> str:
        """Return a line for a list in Redis with its seal in front."""
        return f"{self._of(list_key, line.encode())} {line}" if self._key else line

    def opened_line(self, list_key: str, line: bytes) -> bytes | None:
        """Return what `line` was given; None where it is not sealed by our key for this list."""
        if not self._key:
            return line
        seal, _, bare = line.partition(b" ")
        return bare if self._holds(seal.decode(errors="replace"), list_key, bare) else None

    def _of(self, place: str, content: bytes) -> str:
        # The length keeps the place's end from being taken for the beginning of the content.
        return hmac.digest(self._key, b"%d %b %b" % (len(place.encode()), place.encode(), content), "sha256").hex()

    def _holds(self, seal: object, place: str, content: bytes) -> bool:
        given = str(seal).encode(errors="replace")
        return hmac.compare_digest(given, self._of(place, content).encode())


def seal_of(settings: Settings) -> Seal:
    """Return the seal of a pipeline's settings."""
    return Seal(settings.message_key.get_secret_value())


def _spell(argument: dict[str, Any]) -> bytes:
    # One spelling for what Celery's JSON may have spelt otherwise meanwhile.
    return json.dumps(argument, sort_keys=True, separators=(",", ":")).encode()
