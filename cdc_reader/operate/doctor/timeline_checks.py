"""History of the Postgres server, history of the positions in ClickHouse -> a finding: whether they are the same.

Pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from outhaul.cdc_reader.operate.doctor.finding import Finding, fail, fine

if TYPE_CHECKING:
    from outhaul.sink.fence import Epoch
    from outhaul.sink.position import History


def judge(found: History, newest: Epoch | None) -> Finding:
    """Compare them; `newest` is None before the first reader."""
    check = "history"
    if newest is None:
        return fine(check, "no reader has run yet")
    if newest.history == found:
        return fine(check, f"system {found.system_identifier}, timeline {found.timeline}")
    known = newest.history
    if replace(known, of_standby=found.of_standby) == found:
        was, now = ("a standby", "the primary") if known.of_standby else ("the primary", "a standby")
        return fail(
            check,
            f"ClickHouse has positions of a slot on {was}, but the settings lead to a slot on {now}, which may skip "
            "events",
            "outhaul slot reset --recreate  # to move the stream; otherwise correct OUTHAUL_STREAM_DSN",
        )
    return fail(
        check,
        f"ClickHouse has positions of system {known.system_identifier}, timeline {known.timeline}; this is "
        f"{found.system_identifier}, timeline {found.timeline}",
        "outhaul slot reset --recreate  # if this is the new primary; otherwise correct OUTHAUL_POSTGRES_DSN",
    )
