"""Text -> the same text without the secrets of the settings.

Pure. Known secrets are removed from every part of a text, in each form in which a URL, a header or a driver's message
may quote them. Parts that look like secrets are removed, too: the password in any URL, the value of any `password=`.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote

from pydantic import SecretStr

from outhaul.sink.redis_url import split

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from outhaul.sink.settings import Settings

HIDDEN = "[secret]"

# Shorter secrets are parts of too many words; in URLs and after `password=`, their place identifies them.
_MIN_LENGTH = 4
_IN_URL = re.compile(r"(?<=://)([^\s:/@]*):[^\s/]*@")
_NAMED = re.compile(r"""\b(\w*(?:password|passwd|secret))(\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&'"]+)""", re.IGNORECASE)


class Scrub:
    """Removes a set of secrets from texts and JSON-like data."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        """Prepare all forms of the secrets."""
        forms = {form for secret in secrets for form in _forms(secret) if len(form) >= _MIN_LENGTH}
        # The longest form first, since one form may be part of another.
        known = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
        self._known = re.compile(known) if known else None

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        return _NAMED.sub(rf"\1\2{HIDDEN}", _IN_URL.sub(rf"\1:{HIDDEN}@", text))

    def value(self, value: Any) -> Any:
        """Return JSON-like data with all texts scrubbed; keys, and values that are not texts, stay unchanged."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.value(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(inner) for inner in value]
        return value


def scrub_of(settings: Settings) -> Scrub:
    """Return the `Scrub` for the secrets of these settings.

    A password that is also the value of a public setting (`outhaul`, in a trial) is removed only where its place shows
    that it is a password, as in a URL.
    """
    fields = [getattr(settings, name) for name in type(settings).model_fields]
    plain = {field for field in fields if isinstance(field, str)}
    hidden = (field.get_secret_value() for field in fields if isinstance(field, SecretStr))
    found = {secret for text in hidden for secret in _passwords(text)} | {settings.message_key.get_secret_value()}
    return Scrub(found - plain)


def _passwords(text: str) -> Iterator[str]:
    """Find the passwords in a URL, or in a connection string of `key=value`."""
    for _, _, found in _NAMED.findall(text):
        yield found.strip("'")
    try:
        parts = split(text)
        if parts.password:
            yield parts.password
            yield base64.b64encode(f"{unquote(parts.username or '')}:{unquote(parts.password)}".encode()).decode()
        yield from (value for key, value in parse_qsl(parts.query) if "pass" in key.lower())
    except ValueError:
        # Not a URL; the code that uses it reports this.
        return


def _forms(secret: str) -> set[str]:
    bare = unquote(secret)
    return {secret, bare, quote(bare), quote(bare, safe=""), quote_plus(bare), repr(bare)[1:-1]}
