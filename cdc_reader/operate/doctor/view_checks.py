"""Materialized views on an event table -> findings: whether each gets each event exactly once.

Pure.

Source: https://clickhouse.com/docs/guides/developer/deduplicating-inserts-on-retries
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.cdc_reader.operate.doctor.finding import Finding, fail, fine, warn
from outhaul.sink.schema import window_statement
from outhaul.sink.view_check import flaw_of, is_accepted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from outhaul.sink.settings import Settings
    from outhaul.sink.views import View

# A target remembers one token for each of its partitions that a batch has rows for.
_PARTITIONS = 100


def judge(views: Sequence[View], settings: Settings) -> Iterator[Finding]:
    """Judge each view; a view that is not exact stops the reader at its next start, unless it is accepted."""
    pushed = [view for view in views if not view.is_refreshable]
    wrong = [finding for view in pushed if (finding := _of(view, settings))]
    yield from wrong
    if not wrong:
        yield fine("views", f"{len(pushed)} on the event table, each exact" if pushed else "none")


def _of(view: View, settings: Settings) -> Finding | None:
    check = f"view {view.name.name}"
    if flaw := flaw_of(view, settings.max_in_flight):
        if is_accepted(view.name, settings):
            return warn(check, f"accepted, although not exact: {flaw.why}", flaw.todo)
        return fail(check, f"an event may be missing or repeated in it: {flaw.why}", flaw.todo)
    if (
        view.target
        and view.table
        and view.table.partition_key
        and view.token_window < settings.max_in_flight * _PARTITIONS
    ):
        found = f"its target {view.target} remembers {view.token_window} tokens, one for each partition of a batch"
        return warn(
            check,
            f"{found}: too few if batches have rows of many partitions",
            window_statement(view.table, view.target.database),
        )
    return None
