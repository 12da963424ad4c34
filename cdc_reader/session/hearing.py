"""A line from the list of reports -> the report, if a worker of this pipeline has written it.

Edge: logs and counts what is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from outhaul.cdc_reader import metrics
from outhaul.sink.report import Report

if TYPE_CHECKING:
    from outhaul.sink.seal import Seal

log = structlog.get_logger("outhaul.reader")

_SHOWN_BYTES = 200


def heard(seal: Seal, list_key: str, line: bytes) -> Report | None:
    """Return a report; None for a line that is none, or that nobody who has the key has written for this list."""
    bare = seal.opened_line(list_key, line)
    if bare is None:
        metrics.REPORTS_REFUSED.labels("forged").inc()
        log.warning("report_forged", line=line[:_SHOWN_BYTES])
        return None
    report = Report.from_json(bare)
    if report is None:
        metrics.REPORTS_REFUSED.labels("unreadable").inc()
        log.warning("report_unreadable", line=line[:_SHOWN_BYTES])
    return report
