"""Celery message of `outhaul doctor` -> the whole way of a batch without a row, and the answer.

Edge: Celery, Redis and ClickHouse; a task of the sink. The worker fetches a payload from Redis, and executes the INSERT
of a batch, with its fence, its settings and its conditions, for each event table. The payload has no row, so nothing is
stored and no view receives anything.

Source: docs/adr/0014-a-worker-reads-two-versions.md
"""

from __future__ import annotations

import json
import re
import socket
import time
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import structlog
from celery import shared_task

from outhaul.sink import schema
from outhaul.sink.batch import Batch, Message, encode, token_of
from outhaul.sink.clickhouse_errors import is_thrown
from outhaul.sink.errors import FatalError, ForeignMessageError, PipelineError
from outhaul.sink.failpoint import reach
from outhaul.sink.fence import guard, newest_epoch_here
from outhaul.sink.insert import Contents, Target, insert
from outhaul.sink.lanes import STREAM
from outhaul.sink.message_version import check_version
from outhaul.sink.position import NO_LSN, Position
from outhaul.sink.redis_keys import probe_key
from outhaul.sink.replicas import find_servers
from outhaul.sink.task import sink_of, unexpected_failure
from outhaul.sink.task_names import PROBE
from outhaul.sink.telemetry import metrics, unexpected

if TYPE_CHECKING:
    from outhaul.sink.settings import Outbox
    from outhaul.sink.task import Sink

log = structlog.get_logger("outhaul.sink")

# A worker reads this version and the previous one (ADR 14).
PROBE_VERSION = 1
_RUN = re.compile(r"[0-9a-f]{32}")
_MAX_TEXT = 1000


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """What a worker answers: its host and release, and how long it took; `error` and `todo` if it failed."""

    host: str
    version: str
    seconds: float = 0.0
    error: str = ""
    todo: str = ""

    def to_json(self) -> str:
        """Return the answer as a line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: bytes) -> Self | None:
        """Read a line, also of another release; None if no worker can have written it."""
        try:
            data = json.loads(line)
            texts = {
                name: unexpected.printable(str(data[name]))[:_MAX_TEXT] for name in ("host", "version", "error", "todo")
            }
            return cls(seconds=float(data["seconds"]), **texts)
        except (ValueError, KeyError, TypeError, RecursionError):
            return None


def message_of(source: str, run: str) -> dict[str, Any]:
    """Return the Celery argument of a probe; `run` names the list for the answer."""
    return {"version": PROBE_VERSION, "source": source, "run": run}


@shared_task(name=PROBE, bind=True, max_retries=0)  # type: ignore[untyped-decorator] # celery has no types
def probe(self: Any, *arguments: object, **named: object) -> str:
    """Go the way of a batch without a row, and answer.

    Args:
        self: the task.
        arguments: one argument, made by `message_of`; others are refused.
        named: must be empty.
    """
    sink = sink_of(self.app)
    try:
        run = _accept(sink, arguments[0] if len(arguments) == 1 and not named else None)
    except ForeignMessageError as error:
        metrics.refused()
        log.warning("message_refused", error=error)
        return "refused"
    begun_at = time.monotonic()
    here = ProbeAnswer(socket.gethostname(), version("outhaul"))
    try:
        reach("probe.begun")
        for outbox in sink.settings.outboxes():
            _go(sink, outbox, run)
    except PipelineError as error:
        log.warning("probe_failed", task=self.request.id, error=error)
        _answer(sink, run, here, error)
        return "failed"
    except Exception as error:
        log.exception("probe_failed", task=self.request.id)
        _answer(sink, run, here, unexpected_failure(error))
        return "failed"
    _answer(sink, run, ProbeAnswer(here.host, here.version, round(time.monotonic() - begun_at, 3)))
    return "done"


def _accept(sink: Sink, argument: object) -> str:
    """Return the run of a probe.

    Raises:
        ForeignMessageError: no command of this pipeline has sent it.
    """
    data = sink.seal.opened(PROBE, argument)
    if isinstance(data, dict) and data.get("source") == sink.settings.source:
        check_version(data, PROBE_VERSION, "a probe")
        run = data.get("run")
        if isinstance(run, str) and _RUN.fullmatch(run):
            return run
    raise ForeignMessageError("a malformed probe was received, or one for another source")


def _answer(sink: Sink, run: str, answer: ProbeAnswer, error: PipelineError | None = None) -> None:
    if error is not None:
        answer = ProbeAnswer(answer.host, answer.version, error=error.message, todo=error.todo)
    key = probe_key(sink.settings.source, run)
    sink.payloads.report(key, sink.seal.line(key, answer.to_json()))


def _go(sink: Sink, outbox: Outbox, run: str) -> None:
    """Fetch a payload without a row, and insert it into the event table of an outbox.

    Raises:
        PipelineError: a server refuses or does not answer.
    """
    rows = _no_rows()
    events, letters = schema.batch_tables(outbox)
    newest = newest_epoch_here(sink.clickhouse, sink.settings, STREAM)
    at = Position(NO_LSN, 0)
    payload = encode(rows)
    batch = Batch(events, events, at, at, 0, payload, token_of(sink.settings.source, events, str(at), run, 0, payload))
    message = Message.of(
        batch,
        source=sink.settings.source,
        epoch=newest.epoch if newest else 0,
        owner=newest.owner if newest else "",
        sequence=0,
        attempt=0,
    )
    sink.payloads.put(message.payload_key, payload)
    fetched = sink.payloads.get(message.payload_key, max_bytes=message.size_bytes)
    sink.payloads.drop([message.payload_key])
    if fetched != payload:
        raise FatalError("Redis has not kept a payload", todo="Check that no other program deletes its keys")
    target = Target(
        events,
        letters,
        outbox.view_gaps_table,
        guard(sink.settings),
        sink.settings.insert_timeout_s,
        servers=partial(find_servers, sink.clickhouse, sink.settings, events),
    )
    try:
        insert(sink.clickhouse, message, payload, target, contents=Contents(rows.schema))
    except FatalError as error:
        # A reader that begins a session at this moment refuses the probe as any older insert.
        if not is_thrown(error):
            raise


def _no_rows() -> pa.RecordBatch:
    """Return an empty record batch of the columns that every batch has."""
    types = {
        "cdc_lsn": (pa.uint64(), "UInt64"),
        "cdc_ordinal": (pa.uint64(), "UInt64"),
        "cdc_committed_at": (pa.timestamp("us", "UTC"), "DateTime64(6, 'UTC')"),
    }
    fields = [pa.field(name, kind, metadata={b"clickhouse": of.encode()}) for name, (kind, of) in types.items()]
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in fields], schema=pa.schema(fields))
