"""When rows may be taken, and what a duration is."""

import pytest

from outhaul.cdc_reader.operate.pause_command import Reader, _result
from outhaul.cdc_reader.session.pause import Gate, Pause, PauseRequest, check_length
from outhaul.cdc_reader.session.reader_state import ReaderState, phase
from outhaul.sink.errors import FatalError

PAUSE = Pause(since=100.25, by="zoe@host", reason="upgrade", until=None)

STATE = ReaderState(
    pid=1, host="host", phase="paused", epoch=3, received_lsn="0/9", confirmed_lsn="0/9", in_flight_batches=2,
    in_flight_rows=0, in_flight_bytes=0, events_captured=0, events_stored=0, events_left_out=0, dead_letters=0,
    lag_s=0.0, p50_ms=None, p99_ms=None, last_stored_at=None, trouble="", pause=PAUSE,
)  # fmt: skip


def state(**changes: object) -> ReaderState:
    values = {name: getattr(STATE, name) for name in ReaderState.__slots__} | changes
    return ReaderState(**values)


def test_no_row_is_taken_before_the_first_word() -> None:
    gate = Gate()
    assert gate.is_unknown
    assert not gate.is_open(0)
    gate.update(PauseRequest(), 0)
    assert gate.is_open(0)


def test_a_pause_without_end_shuts_the_gate_until_the_next_word() -> None:
    gate = Gate()
    gate.update(PauseRequest(PAUSE), 0)
    assert not gate.is_open(1e9)
    assert gate.pause(1e9) == PAUSE
    gate.update(PauseRequest(), 1e9)
    assert gate.is_open(1e9)


def test_a_pause_with_an_end_opens_the_gate_by_itself_and_not_before() -> None:
    gate = Gate()
    gate.update(PauseRequest(PAUSE, left_s=5), 10)
    assert [gate.is_open(now) for now in (10, 14.9, 15)] == [False, False, True]
    assert gate.pause(15) is None


def test_a_later_word_without_end_outlives_the_end_of_an_earlier_one() -> None:
    gate = Gate()
    gate.update(PauseRequest(PAUSE, left_s=5), 10)
    gate.update(PauseRequest(PAUSE), 11)
    assert not gate.is_open(1000)


@pytest.mark.parametrize("seconds", [0, -1, 400 * 86_400])
def test_a_pause_lasts_a_second_at_least_and_a_year_at_most(seconds: int) -> None:
    with pytest.raises(FatalError):
        check_length(seconds)
    assert check_length(5400) == 5400


def test_the_state_keeps_a_pause_through_json() -> None:
    assert ReaderState.from_json(STATE.to_json()) == STATE
    assert ReaderState.from_json(state(pause=None).to_json()) == state(pause=None)
    assert ReaderState.from_json(STATE.to_json().replace('"by"', '"whom"')) is None


def test_the_phase_is_one_word() -> None:
    def of(**flags: bool) -> str:
        names = ("is_draining", "is_recovering", "is_paused", "is_idle", "is_troubled")
        return phase(**{name: flags.get(name, False) for name in names})

    assert of() == of(is_idle=True) == "streaming"
    assert of(is_troubled=True) == "waiting"
    assert of(is_paused=True, is_troubled=True) == "pausing"
    assert of(is_paused=True, is_idle=True) == "paused"
    assert of(is_paused=True, is_idle=True, is_recovering=True) == "recovering"
    assert of(is_paused=True, is_idle=True, is_recovering=True, is_draining=True) == "draining"


def test_the_reader_s_answer_is_taken_for_the_newest_word_only() -> None:
    later = Pause(since=200.0, by="zoe@host", reason="again", until=None)
    assert _result(None, PAUSE).reader is Reader.NONE
    assert _result(STATE, PAUSE).reader is Reader.PAUSED
    assert _result(STATE, later).reader is Reader.SILENT
    assert _result(STATE, None).reader is Reader.SILENT
    assert _result(state(phase="pausing"), PAUSE).reader is Reader.FINISHING
    assert _result(state(phase="recovering"), PAUSE).reader is Reader.SILENT
    assert _result(state(phase="streaming", pause=None), None).reader is Reader.RUNNING
    assert _result(state(phase="streaming", pause=None), PAUSE).reader is Reader.SILENT
