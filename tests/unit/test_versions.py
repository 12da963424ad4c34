"""What this release writes is what tests/golden has of its version; what the one before wrote is read, nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outhaul.cdc_reader.session.pause import Pause
from outhaul.cdc_reader.session.reader_state import ReaderState
from outhaul.sink import lanes, redis_keys
from outhaul.sink.batch import MESSAGE_VERSION, Batch, Message
from outhaul.sink.errors import Exit, ForeignMessageError
from outhaul.sink.letters.retry_message import RETRY_MESSAGE_VERSION, RetryMessage, run_and_positions
from outhaul.sink.letters.retry_task import LetterOutcome, LetterReport
from outhaul.sink.message_version import BatchAddress, OtherVersionError
from outhaul.sink.position import Lsn, Position
from outhaul.sink.report import Outcome, Report
from outhaul.sink.seal import Seal
from outhaul.sink.sql import schema_number

GOLDEN = Path(__file__).parents[1] / "golden"
FIRST, LAST = Position(Lsn.parse("16/B374D848"), 0), Position(Lsn.parse("16/B374DA10"), 1023)
TOKEN, RUN = "0123456789abcdef" * 2, "ab" * 16
BATCH = Batch("event_log", "event_log_dead_letters", FIRST, LAST, 1024, bytes(240), TOKEN)
MESSAGE = Message.of(BATCH, source="outhaul", lane="copy", epoch=7, owner="5f1e0c9a7b3d2468", sequence=41, attempt=2)
ORDER = RetryMessage("outhaul", "event_log", RUN, (FIRST, LAST), ("raw",))
PAUSE = Pause(1.5, "ann", "upgrade", 9.0)
STATE = ReaderState(
    pid=7,
    host="here",
    phase="streaming",
    epoch=3,
    received_lsn="0/2",
    confirmed_lsn="0/1",
    in_flight_batches=1,
    in_flight_rows=2,
    in_flight_bytes=3,
    events_captured=4,
    events_stored=5,
    events_left_out=6,
    dead_letters=1,
    lag_s=0.5,
    p50_ms=1.5,
    p99_ms=None,
    last_stored_at=2.5,
    trouble="none",
    pause=PAUSE,
)
REPORT = Report(Outcome.FATAL, TOKEN, 41, 2, "no table", "run setup", int(Exit.CLICKHOUSE_TABLE), 60, 1.5)


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def test_messages_are_those_of_their_version_to_the_last_field() -> None:
    """Who changes one writes a new version, and the file for it; the files of the others stay."""
    assert MESSAGE.to_json() == golden(f"batch_{MESSAGE_VERSION}")
    assert ORDER.to_json() == golden(f"retry_message_{RETRY_MESSAGE_VERSION}")


def test_messages_of_the_release_before_are_read() -> None:
    before = golden(f"batch_{MESSAGE_VERSION - 1}")
    assert Message.from_json(before, "event_log") == replace(MESSAGE, version=MESSAGE_VERSION - 1)
    assert RetryMessage.from_json(golden(f"retry_message_{RETRY_MESSAGE_VERSION - 1}"), "outhaul", "event_log") == ORDER


def test_a_field_that_its_version_does_not_have_is_refused() -> None:
    with pytest.raises(ForeignMessageError, match="has unexpected or missing fields"):
        Message.from_json(golden("batch_2") | {"branch": "event_log"}, "event_log")
    with pytest.raises(ForeignMessageError, match="a malformed message to retry dead letters"):
        RetryMessage.from_json(golden("retry_message_1") | {"branch": "event_log"}, "outhaul", "event_log")


@pytest.mark.parametrize(
    ("version", "who"), [(MESSAGE_VERSION + 1, "Upgrade the workers"), (MESSAGE_VERSION - 2, "Upgrade the readers")]
)
def test_other_versions_are_refused_by_name_and_their_readers_are_found(version: int, who: str) -> None:
    other = MESSAGE.to_json() | {"version": version, "hue": 7}
    with pytest.raises(OtherVersionError, match=rf"version {version} came to a worker that reads 2 and 3.*{who}"):
        Message.from_json(other, "event_log")
    assert BatchAddress.found_in(other, "outhaul") == BatchAddress("outhaul", "copy", 7, 41, TOKEN)


@pytest.mark.parametrize(
    "change", [{"source": "other"}, {"token": "x"}, {"epoch": -1}, {"lane": "a/b"}, {"sequence": "1"}]
)
def test_a_message_without_a_reply_address_gets_no_report(change: dict[str, Any]) -> None:
    assert BatchAddress.found_in(MESSAGE.to_json() | {"version": 9} | change, "outhaul") is None
    assert BatchAddress.found_in(None, "outhaul") is None


@pytest.mark.parametrize("version", [None, "3", True, 0, -1, 3.0, 1 << 63])
def test_what_has_no_version_is_a_stranger_s(version: object) -> None:
    for read in (
        lambda data: Message.from_json(data, "event_log"),
        lambda data: RetryMessage.from_json(data, "outhaul"),
    ):
        with pytest.raises(ForeignMessageError, match="without a version") as found:
            read({"version": version})
        assert not isinstance(found.value, OtherVersionError)


def test_an_order_of_another_version_is_answered_letter_by_letter() -> None:
    other = ORDER.to_json() | {"version": RETRY_MESSAGE_VERSION + 1, "hue": 7}
    with pytest.raises(OtherVersionError, match="Upgrade the workers"):
        RetryMessage.from_json(other, "outhaul", "event_log")
    assert run_and_positions(other, "outhaul") == (RUN, [str(FIRST), str(LAST)])
    assert run_and_positions(other, "another") is None
    assert run_and_positions(other | {"run": "x"}, "outhaul") is None
    assert run_and_positions(other | {"positions": ["x"]}, "outhaul") is None
    assert run_and_positions([], "outhaul") is None


def test_answers_are_as_readers_of_the_release_before_read_them() -> None:
    """Fields may come; none may go, change its name, or mean something else."""
    for ours, name in ((REPORT, "report"), (LetterReport(str(FIRST), LetterOutcome.REFUSED, "why"), "letter_fate")):
        written, recorded = json.loads(ours.to_json()), golden(name)
        assert written | recorded == written
    assert Report.from_json(json.dumps(golden("report") | {"hue": 7})) == REPORT
    assert {outcome.value for outcome in Outcome} >= set(golden("outcomes"))


def test_a_reader_s_state_is_shown_by_the_commands_of_other_releases() -> None:
    written, recorded = json.loads(STATE.to_json()), golden("reader_state")
    assert written | recorded == written
    newer = recorded | {"hue": 7, "pause": recorded["pause"] | {"hue": 7}}
    assert ReaderState.from_json(json.dumps(newer)) == STATE
    older = {name: recorded[name] for name in ("pid", "host", "phase")}
    assert ReaderState.from_json(json.dumps(older)) == ReaderState(7, "here", "streaming")


def test_places_in_redis_and_seals_are_the_same_in_all_releases() -> None:
    fence, key = lanes.fence("outhaul", "copy"), "of all processes, of each release"
    found = {
        "payload": MESSAGE.payload_key,
        "stored": redis_keys.stored_key(MESSAGE.fence, 7),
        "alive": redis_keys.alive_key("outhaul", TOKEN),
        "pulse": redis_keys.pulse_key("outhaul", redis_keys.ANY_WORKER),
        "epoch": redis_keys.epoch_key(fence),
        "reader": redis_keys.reader_key(fence),
        "letters": redis_keys.letters_key("outhaul", RUN),
        "message seal": Seal(key).message("outhaul.write_batch", golden("batch_2"))["seal"],
        "line seal": Seal(key).line("list", "line"),
    }
    assert found == golden("places")


def test_the_changelog_says_first_what_an_upgrade_to_the_newest_release_takes() -> None:
    newest = (GOLDEN.parents[1] / "CHANGELOG.md").read_text().partition("\n## ")[2].partition("\n## ")[0]
    table = newest.partition("### Upgrading\n")[2].partition("\n### ")[0]
    for row in (
        f"| batch messages | version {MESSAGE_VERSION} | workers read {MESSAGE_VERSION - 1} and {MESSAGE_VERSION} |",
        (
            f"| messages to retry dead letters | version {RETRY_MESSAGE_VERSION} "
            f"| workers read {RETRY_MESSAGE_VERSION - 1} and {RETRY_MESSAGE_VERSION} |"
        ),
        f"| Postgres schema | {schema_number('postgres')} |",
        f"| ClickHouse schema | {schema_number('clickhouse')} |",
    ):
        assert row in table
