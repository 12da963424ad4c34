"""When a reader counts as alive and as ready."""

from __future__ import annotations

import pytest

from outhaul.cdc_reader.session.liveness import Liveness
from outhaul.cdc_reader.session.reader_state import PHASES, SESSION_PHASES


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def signs(clock: Clock, doing: str) -> Liveness:
    made = Liveness(receive_timeout_s=60, clock=clock)
    made.set_phase(doing)
    return made


@pytest.mark.parametrize("doing", PHASES)
def test_ready_is_who_has_a_session_or_stands_by(doing: str) -> None:
    ready = signs(Clock(), doing).why_not_ready() == ""
    assert ready is (doing in SESSION_PHASES or doing == "standing_by")


def test_a_loop_that_does_not_turn_is_not_alive() -> None:
    clock = Clock()
    reader = signs(clock, "streaming")
    clock.now += 20
    assert reader.why_not_alive() == reader.why_not_ready() == "the loop has not turned for 20 s (streaming)"
    reader.note_turn(clock.now, clock.now, clock.now)
    assert reader.why_not_alive() == ""


def test_a_reader_that_waits_for_servers_is_alive_for_minutes() -> None:
    clock = Clock()
    reader = signs(clock, "reconnecting")
    clock.now += 250
    assert (reader.why_not_alive(), reader.why_not_ready()) == ("", "the reader is reconnecting")
    clock.now += 100
    assert reader.why_not_alive() != ""


def test_a_loop_that_turns_and_receives_nothing_is_not_alive() -> None:
    clock = Clock()
    reader = signs(clock, "streaming")
    received_at = clock.now
    clock.now += 65
    reader.note_turn(clock.now, received_at, clock.now)
    # The session itself gives up after 60 s, and has a moment to.
    assert reader.why_not_alive() == ""
    clock.now += 10
    reader.note_turn(clock.now, received_at, clock.now)
    assert reader.why_not_alive() == "no byte was received from Postgres for 75 s"


def test_a_new_session_does_not_inherit_the_silence_of_the_one_before() -> None:
    clock = Clock()
    reader = signs(clock, "streaming")
    reader.set_phase("reconnecting")
    clock.now += 120
    reader.set_phase("recovering")
    assert reader.why_not_alive() == ""
