"""When a new timeline may be followed."""

from __future__ import annotations

import pytest

from outhaul.cdc_reader.postgres.timelines import Past, parse, why_not_follow
from outhaul.sink.position import History, Lsn

FILE = """\
# a comment
1\t0/3000000\tno recovery target specified

2\t1/A0\tbefore 2026-01-01 00:00:00+00
"""
ONE, TWO, THREE = (History("7", timeline) for timeline in (1, 2, 3))
ON_STANDBY = History("7", 2, of_standby=True)
ENDED = {1: Lsn(0x3000000), 2: Lsn.parse("1/A0")}
PAST = Past(ENDED, slot_was_synced=True)
BEFORE = Lsn(0x2FFFFFF)


def test_a_history_file_says_where_each_timeline_ended() -> None:
    assert parse(FILE) == ENDED


@pytest.mark.parametrize(
    ("known", "found", "past", "confirmed", "why"),
    [
        (TWO, THREE, PAST, BEFORE, ""),
        (ONE, THREE, PAST, BEFORE, ""),
        (ONE, THREE, PAST, ENDED[1], ""),
        (ONE, THREE, PAST, Lsn(ENDED[1] + 1), "has been moved"),
        (ONE, THREE, Past(ENDED), BEFORE, "was not synchronised"),
        (ONE, TWO, Past({}, slot_was_synced=True), BEFORE, "did not branch off"),
        (THREE, TWO, PAST, BEFORE, "did not branch off"),
        (TWO, ONE, Past({}, slot_was_synced=True), BEFORE, "did not branch off"),
        (History("8", 1), TWO, PAST, BEFORE, "another cluster"),
        (ON_STANDBY, THREE, Past(ENDED), BEFORE, ""),
        (ON_STANDBY, THREE, Past(ENDED), Lsn(ENDED[2] + 1), "has been moved"),
        (ON_STANDBY, TWO, PAST, BEFORE, "a slot of a standby, but this slot is one of the primary"),
        (TWO, ON_STANDBY, PAST, BEFORE, "a slot of the primary, but this slot is one of a standby"),
        (ONE, ON_STANDBY, Past(ENDED), BEFORE, "was not synchronised"),
    ],
)
def test_only_a_timeline_that_is_known_to_go_on_is_followed(
    known: History, found: History, past: Past, confirmed: Lsn, why: str
) -> None:
    reason = why_not_follow(known, found, past, confirmed)
    assert why in reason if why else not reason
