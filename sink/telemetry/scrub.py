"""Text -> the same text without the secrets of our settings.

Pure. What is known to be secret is taken out wherever it stands, in each of the forms in which a URL, a header or a
driver's message may quote it. What merely looks like one, as a password in somebody else's URL, is taken out, too.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from pydantic import SecretStr

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from outhaul.sink.settings import Settings

HIDDEN = "[secret]"

# Shorter ones stand in too many words; in URLs and after `password=` they are found by the form.
_MIN_LENGTH = 4
_IN_URL = re.compile(r"(?<=://)([^\s:/@]*):[^\s/]*@")
_NAMED = re.compile(r"""\b(\w*(?:password|passwd|secret))(\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&'"]+)""", re.IGNORECASE)


class Scrub:
    """Takes a set of secrets out of whatever it is given."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        """Keep the secrets in all of their forms."""
        forms = {form for secret in secrets for form in _forms(secret) if len(form) >= _MIN_LENGTH}
        # The longest first: one may be part of another.
        known = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
        self._known = re.compile(known) if known else None

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        return _NAMED.sub(rf"\1\2{HIDDEN}", _IN_URL.sub(rf"\1:{HIDDEN}@", text))

    def value(self, value: Any) -> Any:
        """Return JSON-like data with all of its texts scrubbed; keys stay, and so does what is no text."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.value(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(inner) for inner in value]
        return value


def scrub_of(settings: Settings) -> Scrub:
    """Return what takes the secrets of these settings out.

    A password that is also a name that we print all the time (`outhaul`, in a trial) is left to the forms of URLs.
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
        parts = urlsplit(text)
        if parts.password:
            yield parts.password
            yield base64.b64encode(f"{unquote(parts.username or '')}:{unquote(parts.password)}".encode()).decode()
        yield from (value for key, value in parse_qsl(parts.query) if "pass" in key.lower())
    except ValueError:
        # No URL at all; whoever reads it next says so.
        return


def _forms(secret: str) -> set[str]:
    bare = unquote(secret)
    return {secret, bare, quote(bare), quote(bare, safe=""), quote_plus(bare), repr(bare)[1:-1]}
