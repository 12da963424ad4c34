"""The history that ClickHouse knows, the history that the server writes -> may the source continue, or why not.

Pure. A promoted standby writes a new timeline, which shares the WAL of the old one up to the point where it branched
off. A slot that was synchronised from the old primary confirms only what a reader has confirmed there. So if the slot
is before the branch, and no stored position is after it, the new timeline continues the old one: no event is skipped,
and no position stands for two events.

A slot that was created on a standby keeps its position when that server changes its timeline, and a session that
streams from it continues. If a session held the slot during the change, no further proof is needed: no other session
can have moved it.

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
    """The past of a server: where each earlier timeline ended, and whether its slot was synchronised from a primary.

    `witness` is the owner of the session that held the slot during a change of history, and the history after it.
    """

    ended: Mapping[int, Lsn] = field(default_factory=dict)
    slot_was_synced: bool = False
    witness: tuple[str, History] | None = None


def parse(text: str) -> dict[int, Lsn]:
    """Parse a timeline history file: it has a line for each earlier timeline, with the LSN of its end."""
    lines = (line.split(maxsplit=2) for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {int(timeline): Lsn.parse(lsn) for timeline, lsn, *_ in lines}


def why_not_follow(known: History, found: History, past: Past, confirmed: Lsn) -> str:
    """Return why the source must not continue; empty if only the stored positions remain to be checked."""
    if known.system_identifier != found.system_identifier:
        return "it is another cluster"
    if known.timeline == found.timeline:
        return (
            f"it was read from a slot of {_server(known)}, but this slot is one of {_server(found)}: it may skip events"
        )
    ended_at = past.ended.get(known.timeline)
    if ended_at is None or known.timeline >= found.timeline:
        return f"timeline {found.timeline} did not branch off from timeline {known.timeline}"
    if not past.slot_was_synced and not known.of_standby:
        return "the slot was not synchronised from the old primary, so it may skip events"
    if confirmed > ended_at:
        return f"the slot has been moved since timeline {known.timeline} ended at {ended_at}"
    return ""


def _server(history: History) -> str:
    return "a standby" if history.of_standby else "the primary"
