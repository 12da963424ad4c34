"""Materialized views on an event table -> findings: whether each gets each event exactly once.

Pure.

Source: https://clickhouse.com/docs/guides/developer/deduplicating-inserts-on-retries
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.cdc_reader.operate.doctor.finding import Finding, fail, fine, warn
from outhaul.sink.view_check import flaw_of, is_accepted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from outhaul.sink.schema import Table
    from outhaul.sink.settings import Settings
    from outhaul.sink.view_check import Flaw
    from outhaul.sink.views import View


def judge(views: Sequence[View], events: Table, settings: Settings) -> Iterator[Finding]:
    """Judge each view on an event table; one that is not exact stops the reader's next start, unless it is accepted."""
    pushed = [view for view in views if not view.is_refreshable]
    flaws = [flaw for view in pushed if (flaw := flaw_of(view, events))]
    yield from (_finding(flaw, settings) for flaw in flaws)
    if not flaws:
        yield fine("views", f"{len(pushed)} on the event table, each exact" if pushed else "none")


def _finding(flaw: Flaw, settings: Settings) -> Finding:
    check = f"view {flaw.view}"
    if is_accepted(flaw.view, settings):
        return warn(check, f"accepted, although not exact: {flaw.why}", flaw.todo)
    return fail(check, f"an event may be missing or repeated in it: {flaw.why}", flaw.todo)
