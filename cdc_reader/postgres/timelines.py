"""The history that ClickHouse knows, the one that the server writes -> may positions of both be read as one?

Pure. A standby that is promoted writes a new timeline, which shares the log with the old one up to where it branched
off. A slot that was synchronised from the old primary confirms nothing that our own reader has not confirmed there. So
where it stands before the branch, and nothing that is stored lies behind it, the new timeline goes on where the old one
ended: nothing is skipped, and no position means two events.

A slot of a standby's own goes on where it stands when that server comes to another timeline, and so does a session that
streams from it. What such a session saw is better than any proof: its slot was never anybody else's.

Source: https://www.postgresql.org/docs/current/logicaldecoding-explanation.html#LOGICALDECODING-REPLICATION-SLOTS-SYNCHRONIZATION
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from outhaul.sink.position import Lsn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outhaul.sink.position import History


@dataclass(frozen=True, slots=True)
class Past:
    """What a server says of its past: where each timeline before its own ended, and whether the slot came from it.

    `witness` is the owner of an epoch whose session held the slot while its server came to a history, and that history.
    """

    ended: Mapping[int, Lsn] = field(default_factory=dict)
    slot_was_synced: bool = False
    witness: tuple[str, History] | None = None


def parse(text: str) -> dict[int, Lsn]:
    """Read a timeline history file: a line for each timeline before this one, with where it was left."""
    lines = (line.split(maxsplit=2) for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {int(timeline): Lsn.parse(lsn) for timeline, lsn, *_ in lines}


def doubt(known: History, found: History, past: Past, confirmed: Lsn) -> str:
    """Return why the source must not go on by itself; nothing where only what is stored is left to be asked."""
    if known.system_identifier != found.system_identifier:
        return "it is another cluster"
    if known.timeline == found.timeline:
        return (
            f"it was read from a slot of {_whose(known)}, and this one is {_whose(found)}: what that skips is unknown"
        )
    ended_at = past.ended.get(known.timeline)
    if ended_at is None or known.timeline >= found.timeline:
        return f"timeline {found.timeline} does not come from timeline {known.timeline}"
    if not past.slot_was_synced and not known.of_standby:
        return "the slot was not synchronised from the old primary, so what it skips is unknown"
    if confirmed > ended_at:
        return f"the slot has been moved since timeline {known.timeline} ended at {ended_at}"
    return ""


def _whose(history: History) -> str:
    return "a standby's" if history.of_standby else "the primary's"
