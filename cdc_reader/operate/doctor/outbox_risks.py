"""Catalogue of an outbox -> findings: whether the stream has each event once, and whether comparisons see all rows.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.cdc_reader.operate.doctor.finding import Finding, tried
from outhaul.cdc_reader.postgres.outbox_checks import OutboxRisks, check_children, check_moves, check_visible

if TYPE_CHECKING:
    from collections.abc import Iterator


def judge(found: OutboxRisks) -> Iterator[Finding]:
    """Judge the table; whether inserts into its partitions are in the log is judged with the publication."""
    yield tried("row security", f"hides no row of {found.name} from {found.role}", lambda: check_visible(found))
    yield tried("child tables", f"no table inherits from {found.name}", lambda: check_children(found))
    if found.keys:
        key = f"the partition key is {', '.join(found.keys)}{', and a trigger keeps it' if found.is_guarded else ''}"
        yield tried("row moves", key, lambda: check_moves(found))
