"""Forged messages and reports, each looked at alone: refused, counted, and of no effect on worker or reader."""

from __future__ import annotations

import contextlib
import functools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outhaul.cdc_reader.capture.assemble import Assembled
from outhaul.cdc_reader.session.ledger import Phase
from outhaul.cdc_reader.session.loop import Session
from outhaul.cdc_reader.session.pause import PauseRequest
from outhaul.cdc_reader.session.threads import Tools
from outhaul.sink.app import make_app
from outhaul.sink.batch import MESSAGE_VERSION, Message
from outhaul.sink.clickhouse_errors import error_of
from outhaul.sink.errors import FatalError, ForeignMessageError, PoisonError, TransientError
from outhaul.sink.insert import contents_of
from outhaul.sink.position import Lsn
from outhaul.sink.quarantine import set_aside
from outhaul.sink.report import Outcome, Report
from outhaul.sink.settings import load
from outhaul.sink.task import accept
from outhaul.sink.task_names import WRITE_BATCH
from outhaul.sink.telemetry.metrics import REGISTRY
from tests.unit.batches import batch_of, message_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.capture.dispatch import Dispatcher
    from outhaul.cdc_reader.postgres.slot import Link
    from outhaul.sink.redis.payloads import Payloads
    from outhaul.sink.settings import Settings

BATCH = batch_of([1, 2, 3])
MESSAGE = message_of(BATCH)
TOKEN = MESSAGE.token
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)

FORGERIES: dict[str, Any] = {
    "a system table": {"table": "system.users"},
    "a table that is a statement": {"table": "x; DROP TABLE event_log"},
    "a quoted table": {"table": "`event_log`"},
    "a table of outhaul's that holds no events": {"table": "event_log_epochs"},
    "the events of another outbox": {"branch": "audit_log"},
    "a branch that is a statement": {"branch": "event_log; DROP"},
    "another database": {"table": "default.event_log"},
    "an empty table": {"table": ""},
    "another source": {"source": "someone_else"},
    "a source that is a key": {"source": "x}:payload:y"},
    "a source that is a pattern": {"source": "*"},
    "a token that is a path": {"token": "../../etc/passwd"},
    "a token of another length": {"token": "ab"},
    "a token in capitals": {"token": TOKEN.upper()[:31] + "A"},
    "a token with the suffix of a part": {"token": f"{TOKEN}-0-1"},
    "a token with a line's end": {"token": f"{TOKEN}\n"},
    "an owner that is a statement": {"owner": "' OR 1 = 1 --"},
    "no position": {"first": "garbage"},
    "a position without an ordinal": {"last": "0/9"},
    "a negative ordinal": {"last": "0/9#-1"},
    "an ordinal without end": {"last": "0/9#" + "9" * 5000},
    "a position of more than 64 bits": {"first": "123456789/0#0"},
    "negative rows": {"rows": -1},
    "no rows": {"rows": 0},
    "a negative size": {"size_bytes": -1},
    "no size": {"size_bytes": 0},
    "a negative epoch": {"epoch": -1},
    "a negative sequence": {"sequence": -1},
    "a negative attempt": {"attempt": -1},
    "a number of more than 64 bits": {"sequence": 1 << 64},
    "a number that is a text": {"rows": "3"},
    "a number that is a truth": {"epoch": True},
    "a number with a point": {"rows": 3.0},
    "a text that is a list": {"table": ["event_log"]},
    "a text that is nothing": {"source": None},
    "a version that is a text": {"version": str(MESSAGE_VERSION + 1)},
    "no version": {"version": 0},
    "a version that is a truth": {"version": True},
    "one field more": {"extra": 1},
}


@functools.cache
def defaults() -> Settings:
    """The settings of a pipeline named outhaul; read in a test, where the environment is clean."""
    return load()


def forged(changes: dict[str, Any]) -> dict[str, Any]:
    return MESSAGE.to_json() | changes


def refused() -> float:
    return REGISTRY.get_sample_value("outhaul_worker_errors_total", {"kind": "foreign", "code": "none"}) or 0.0


def lost() -> float:
    return REGISTRY.get_sample_value("outhaul_worker_reports_lost_total") or 0.0


def run(*arguments: object, **named: object) -> str:
    """Run the task as a worker does, but here; nothing of what is refused needs a server."""
    task = make_app(defaults()).tasks[WRITE_BATCH]
    return str(task.apply(args=arguments, kwargs=named, throw=True).get())


def test_our_own_message_is_accepted() -> None:
    assert accept(defaults(), (MESSAGE.to_json(),), {}) == MESSAGE
    dead = replace(MESSAGE, table="event_log_dead_letters")
    assert accept(defaults(), (dead.to_json(),), {}) == dead


@pytest.mark.parametrize("changes", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_message_is_refused_and_counted(changes: dict[str, Any]) -> None:
    before = refused()
    assert run(forged(changes)) == "refused"
    assert refused() == before + 1


@pytest.mark.parametrize("changes", [{"source": "someone_else"}, {"token": "../../etc/passwd"}, {"epoch": -1}])
def test_a_message_of_another_version_that_names_no_batch_gets_no_report(changes: dict[str, Any]) -> None:
    before, lost_before = refused(), lost()
    # There is no Redis here: an answer would be lost.
    assert run(forged({"version": MESSAGE_VERSION + 1} | changes)) == "other_version"
    assert lost() == lost_before
    assert refused() == before + 1


@pytest.mark.parametrize("name", MESSAGE.to_json())
def test_a_message_that_lacks_a_field_is_refused(name: str) -> None:
    data = MESSAGE.to_json()
    del data[name]
    assert run(data) == "refused"


def test_other_arguments_than_one_message_are_refused() -> None:
    before = refused()
    assert run() == "refused"
    assert run(MESSAGE.to_json(), MESSAGE.to_json()) == "refused"
    assert run(MESSAGE.to_json(), data=1) == "refused"
    assert run(data=MESSAGE.to_json()) == "refused"
    assert refused() == before + 4


@given(JSON)
def test_no_json_at_all_passes_for_a_message(data: object) -> None:
    with pytest.raises(ForeignMessageError):
        Message.from_json(data)


@given(st.sampled_from(sorted(MESSAGE.to_json())), JSON)
def test_a_message_with_a_forged_field_is_refused_or_well_formed(name: str, value: object) -> None:
    try:
        message = accept(defaults(), (forged({name: value}),), {})
    except ForeignMessageError:
        return
    assert message.source == "outhaul"
    assert message.table in {"event_log", "event_log_dead_letters"}
    assert set(message.token) <= set("0123456789abcdef")
    assert message.payload_key == f"outhaul:{{outhaul}}:payload:{message.token}"
    assert min(message.rows, message.size_bytes, message.epoch + 1, message.sequence + 1, message.attempt + 1) > 0


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"garbage",
        BATCH.payload[:40],
        BATCH.payload[8:],
        b"\xff" * 4096,
        pa.ipc.new_stream,
    ],
    ids=["empty", "garbage", "cut", "shifted", "ones", "untyped"],
)
def test_a_payload_that_no_reader_made_is_refused(payload: Any) -> None:
    if callable(payload):
        out = pa.BufferOutputStream()
        with payload(out, pa.schema([("id", pa.int64())])):
            pass
        payload = out.getvalue().to_pybytes()
    with pytest.raises(ForeignMessageError):
        contents_of(payload)


@given(st.integers(0, len(BATCH.payload) - 1), st.integers(1, 255))
def test_a_payload_with_one_byte_flipped_is_refused_or_read(at: int, flip: int) -> None:
    damaged = bytearray(BATCH.payload)
    damaged[at] ^= flip
    assert not MESSAGE.announces(bytes(damaged))
    with contextlib.suppress(ForeignMessageError):
        assert isinstance(contents_of(bytes(damaged)).schema, pa.Schema)


def session() -> Session:
    """A session with one batch in flight and no server behind it."""
    tools = Tools(
        link=cast("Link", None),
        dispatcher=cast("Dispatcher", None),
        payloads=cast("Payloads", None),
        recover=cast("Callable[..., Any]", None),
        pause_request=PauseRequest,
        fill_views=lambda _epoch: None,
        view_flaws=lambda: (),
        random=lambda: 0.0,
    )
    made = Session(defaults().undivided, tools, Lsn(0), owner="me", status_interval_s=1.0)
    made.threads.events.close()
    made.flight.watermark.add_group()
    made.flight.watermark.decoded([0], Lsn(9))
    entry = made.flight.ledger.add(MESSAGE, Assembled(BATCH, None, np.zeros(3, np.int64)), 0.0)
    made.flight.ledger.note(entry.message.sequence, Phase.SENT, 0.0)
    return made


STRANGERS = [("0" * 32, 0), (TOKEN, 7), ("", 0), (TOKEN[:-1], 0), ("0" * 32, 7)]


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize(("token", "sequence"), STRANGERS)
def test_a_report_on_a_batch_that_is_not_in_flight_does_nothing(outcome: Outcome, token: str, sequence: int) -> None:
    reader = session()
    before = reader.flight.ledger.entries[0].phase, reader.flight.ledger.entries[0].since
    reader._handle(Report(outcome, token, sequence, error="stop", wait_s=1e6))
    assert reader.flight.watermark.confirmed == 0
    assert reader.flight.watermark.in_flight == 1
    assert (reader.flight.ledger.entries[0].phase, reader.flight.ledger.entries[0].since) == before
    assert not reader.flight.progress.trouble


def test_a_report_on_the_batch_in_flight_is_accepted() -> None:
    reader = session()
    reader._handle(Report(Outcome.STORED, TOKEN, 0))
    assert reader.flight.watermark.confirmed == 9
    with pytest.raises(FatalError):
        session()._handle(Report(Outcome.FATAL, TOKEN, 0))
    with pytest.raises(TransientError):
        session()._handle(Report(Outcome.STALE, TOKEN, 0))


LINE: dict[str, Any] = json.loads(Report(Outcome.FATAL, TOKEN, 0, error="e").to_json())


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 5000,
        b"1e999999",
        b"x" * (32 << 20),
        json.dumps(LINE | {"outcome": "won"}),
        json.dumps(LINE | {"outcome": []}),
        json.dumps(LINE | {"sequence": float("inf")}),
        json.dumps(LINE | {"sequence": float("nan")}),
        json.dumps(LINE | {"sequence": -1}),
        json.dumps(LINE | {"dead_letters": -1}),
        json.dumps(LINE | {"wait_s": float("nan")}),
        json.dumps(LINE | {"wait_s": float("inf")}),
        json.dumps(LINE | {"wait_s": -1}),
        json.dumps(LINE | {"wait_s": 1e9}),
        json.dumps(LINE | {"code": {"a": 1}}),
        json.dumps(LINE | {"exit_code": []}),
        json.dumps(LINE | {"error": "x" * 100_000}),
    ],
)
def test_a_line_that_no_task_writes_is_no_report(line: bytes | str) -> None:
    assert Report.from_json(line) is None


@pytest.mark.parametrize("exit_code", [999, -1, 2**40, "22", 1.5, None])
def test_a_fatal_report_with_an_exit_code_that_we_do_not_know_still_stops_the_reader(exit_code: object) -> None:
    report = Report.from_json(json.dumps(LINE | {"exit_code": exit_code}))
    assert report is not None
    with pytest.raises(FatalError):
        session()._handle(report)


@given(st.dictionaries(st.sampled_from(sorted(LINE)), JSON))
def test_no_forged_line_raises_anything_that_the_reader_does_not_know(changes: dict[str, object]) -> None:
    report = Report.from_json(json.dumps(LINE | changes))
    if report is None:
        return
    try:
        session()._handle(report)
    except (FatalError, TransientError):
        assert (report.token, report.sequence) == (TOKEN, 0)


def test_an_error_that_quotes_megabytes_is_kept_short_at_both_ends() -> None:
    error = error_of(117, "Cannot read: [" + "x" * (8 << 20) + "]: while converting event_context\nstack")
    assert isinstance(error, PoisonError)
    assert len(str(error)) < 3000
    assert str(error).startswith("ClickHouse: Cannot read: [xxx")
    assert str(error).endswith("xxx]: while converting event_context")


def test_a_row_that_was_refused_alone_is_not_tried_again_before_it_is_set_aside() -> None:
    batch = batch_of([1])
    stored: list[Message] = []
    count = set_aside(
        message_of(batch),
        batch.payload,
        lambda message, _: stored.append(message),
        dead_letters="event_log_dead_letters",
        refused=PoisonError("no"),
    )
    assert count == 1
    assert [message.table for message in stored] == ["event_log_dead_letters"]
