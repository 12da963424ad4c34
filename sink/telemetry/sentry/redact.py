"""Event as the SDK has made it -> the same without secrets, addresses, and whatever a message quotes of the data.

Pure. Servers quote values in their messages: ClickHouse the text that it cannot read, Postgres the row of a violated
constraint. So what is quoted goes, the words about it stay; and of an error of the data themselves only the code is
told. Names that matter (source, slot, batch) are in the tags.

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
# From an opening quote to its end, or to the end of the text where that was cut; an apostrophe within a word is none.
_QUOTED = re.compile(r"""(?<!\w)(['"])(?:[^\\]|\\.)*?(?:\1(?!\w)|\Z)""", re.DOTALL)
_BRACKETED = re.compile(r"\{.*\}|\[.*\]|=\(.*\)", re.DOTALL)
_DETAIL = re.compile(r"\s*\b(?:DETAIL|CONTEXT|HINT|Column values):.*", re.DOTALL)
_LONG_WORD = re.compile(r"\S{80,}")
_MAX_CHARACTERS = 500

# What a client may add by itself, and nobody here needs.
_UNWANTED = ("request", "user", "extra", "modules")


class Redact:
    """The last look at what leaves the process."""

    def __init__(self, scrub: Scrub) -> None:
        """Keep what knows the secrets."""
        self._scrub = scrub

    def event(self, event: Any, hint: Mapping[str, Any]) -> Any:
        """Return an error event as it may be sent."""
        for name in _UNWANTED:
            event.pop(name, None)
        raised = (hint.get("exc_info") or (None, None))[1]
        values = (event.get("exception") or {}).get("values") or []
        for value in values:
            value["value"] = plain(value.get("value") or "")
        if isinstance(raised, PipelineError) and values:
            # Its causes are drivers' errors, from whose texts it was made; the last one is the error itself.
            for value in values[:-1]:
                value["value"] = ""
            values[-1]["value"] = words(raised)
        if "message" in event.get("logentry", {}):
            event["logentry"] = {"message": plain(event["logentry"]["message"])}
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


def words(error: PipelineError) -> str:
    """Return what may be said of an error of ours: its words, or its code where it is about the data."""
    if error.code in POISON:
        return f"ClickHouse refuses a value: {error.code} {POISON[error.code]}"
    return plain(str(error))


def plain(text: str) -> str:
    """Return a message without what it quotes."""
    for form, instead in ((_DETAIL, ""), (_QUOTED, "'…'"), (_BRACKETED, "…"), (_LONG_WORD, "…")):
        text = form.sub(instead, text)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"
