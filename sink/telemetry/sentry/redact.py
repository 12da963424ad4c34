"""Sentry event as the SDK has made it -> the same without secrets, e-mail addresses, and values quoted from the data.

Pure. Servers quote values in their messages: ClickHouse the text that it cannot read, Postgres the row of a violated
constraint. So quoted parts of messages are removed, and the rest stays. Of an error about the data, only the code is
sent. Important names (source, slot, batch) are in the tags.

Source: https://develop.sentry.dev/sdk/data-model/event-payloads/
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from outhaul.sink.clickhouse_errors import POISON
from outhaul.sink.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outhaul.sink.telemetry.scrub import Scrub

_E_MAIL = re.compile(r"[\w.%+-]+(?:@|%40)[\w-]+(?:\.[\w-]+)+")
# From an opening quote to the closing one, or to the end of a cut text; an apostrophe in a word is not a quote.
_QUOTED = re.compile(r"""(?<!\w)(['"])(?:[^\\]|\\.)*?(?:\1(?!\w)|\Z)""", re.DOTALL)
_BRACKETED = re.compile(r"\{.*\}|\[.*\]|=\(.*\)", re.DOTALL)
_DETAIL = re.compile(r"\s*\b(?:DETAIL|CONTEXT|HINT|Column values):.*", re.DOTALL)
_LONG_WORD = re.compile(r"\S{80,}")
_MAX_CHARACTERS = 500

# Parts that the SDK may add, and that outhaul never sends.
_UNWANTED = ("request", "user", "extra", "modules")


class Redact:
    """The last step before an event leaves the process."""

    def __init__(self, scrub: Scrub) -> None:
        """Keep the `Scrub` with the settings' secrets."""
        self._scrub = scrub

    def event(self, event: Any, hint: Mapping[str, Any]) -> Any:
        """Return an error event as it may be sent."""
        for name in _UNWANTED:
            event.pop(name, None)
        raised = (hint.get("exc_info") or (None, None))[1]
        values = (event.get("exception") or {}).get("values") or []
        for value in values:
            value["value"] = without_quotes(value.get("value") or "")
        if isinstance(raised, PipelineError) and values:
            # The last value is the error itself. The others are its causes: the drivers' errors that it was made from.
            for value in values[:-1]:
                value["value"] = ""
            values[-1]["value"] = message_of(raised)
        if "message" in event.get("logentry", {}):
            event["logentry"] = {"message": without_quotes(event["logentry"]["message"])}
        return self._clean(event)

    def transaction(self, event: Any, _hint: Mapping[str, Any]) -> Any:
        """Return a transaction as it may be sent."""
        for name in _UNWANTED:
            event.pop(name, None)
        return self._clean(event)

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return _E_MAIL.sub("[e-mail]", self._scrub.text(value))
        if isinstance(value, dict):
            return {key: self._clean(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._clean(inner) for inner in value]
        return value


def message_of(error: PipelineError) -> str:
    """Return the text of a PipelineError that may be sent: its message without quotes; its code if it is about data."""
    if error.code in POISON:
        return f"ClickHouse refuses a value: {error.code} {POISON[error.code]}"
    return without_quotes(str(error))


def without_quotes(text: str) -> str:
    """Return a message without its quoted parts, at most 500 characters."""
    for form, instead in ((_DETAIL, ""), (_QUOTED, "'…'"), (_BRACKETED, "…"), (_LONG_WORD, "…")):
        text = form.sub(instead, text)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"
