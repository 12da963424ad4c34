"""Celery message with positions of dead letters -> their rows in the event table, and the letters deleted.

Edge: Celery, ClickHouse and Redis; the second task of the sink. The order of the steps matters: a crash between any two
of them neither loses nor repeats a row.

1. *insert*: each row has a statement of its own, which is refused if the event table has its position. The token
   depends on source, position and epoch only, so of two simultaneous retries one stores nothing.
2. *wait*: until all inserts of the source that began before this step have ended, in all lanes. An insert that begins
   later finds the position in the event table. So no insert can miss the position in both tables.
3. *remove*: only letters whose position a query has found in the event table.

A crash before step 3 leaves a row in both tables; the next retry finds it stored, and removes the letter.

Source: https://clickhouse.com/docs/sql-reference/statements/alter/delete
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import structlog
from celery import shared_task

from outhaul.sink.batch import Message, encode
from outhaul.sink.clickhouse_errors import is_thrown
from outhaul.sink.errors import FatalError, ForeignMessageError, PoisonError, TransientError
from outhaul.sink.failpoint import reach
from outhaul.sink.fence import guard, newest_epoch, wait_for_older_inserts
from outhaul.sink.insert import Contents, Target
from outhaul.sink.lanes import STREAM
from outhaul.sink.letters import cast_check
from outhaul.sink.letters import dead_letters as letters
from outhaul.sink.letters.restore import restore, values_of
from outhaul.sink.letters.retry_message import RetryMessage, run_and_positions
from outhaul.sink.message_version import OtherVersionError
from outhaul.sink.redis_keys import letters_key
from outhaul.sink.replicas import find_servers
from outhaul.sink.seal import ForgedMessageError
from outhaul.sink.task import ending_if_refused, outbox_of, sink_of, store_events, unexpected_failure
from outhaul.sink.task_names import RETRY_LETTERS
from outhaul.sink.telemetry import metrics, unexpected

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import pyarrow as pa

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.fence import Epoch
    from outhaul.sink.letters.restore import Letter
    from outhaul.sink.position import Position
    from outhaul.sink.settings import Outbox
    from outhaul.sink.task import Sink

log = structlog.get_logger("outhaul.sink")

_OWNERS_TRIED = 3
_ROW_IS_MISSING = (
    "ClickHouse remembers an insert of this row, but lacks the row: it was killed in between, or somebody has deleted "
    "the row. Start the reader again, and then retry: its new epoch has new tokens"
)


class LetterOutcome(StrEnum):
    """What a retry did with a letter."""

    RETRIED = "retried"  # the event table has the row, and the letter is deleted
    REFUSED = "refused"  # ClickHouse still refuses the row, and the letter has the new reason
    UNKNOWN = "unknown"  # no letter has this position
    DISCARDED = "discarded"  # the letter was discarded, so its values are deleted
    FAILED = "failed"  # not done, for a cause outside this letter


@dataclass(frozen=True, slots=True)
class LetterReport:
    """The outcome of one letter; `why` is the reason or the error. In JSON, the outcome is called `fate`."""

    position: str
    outcome: LetterOutcome
    why: str = ""

    def to_json(self) -> str:
        """Return the report as a line."""
        return json.dumps({"position": self.position, "fate": self.outcome.value, "why": self.why})

    @classmethod
    def from_json(cls, line: bytes) -> Self | None:
        """Read a line; None if the sink cannot have written it."""
        try:
            data = json.loads(line)
            return cls(str(data["position"]), LetterOutcome(data["fate"]), str(data["why"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None


@shared_task(name=RETRY_LETTERS, bind=True, max_retries=0)  # type: ignore[untyped-decorator] # celery has no types
def retry_letters(self: Any, *arguments: object, **named: object) -> str:
    """Retry some dead letters, and report the outcome of each; a failure leaves the letters as they are.

    Args:
        self: the task.
        arguments: one `outhaul.sink.letters.retry_message.RetryMessage` as JSON; other arguments are refused.
        named: must be empty.
    """
    sink = sink_of(self.app)
    try:
        argument = arguments[0] if len(arguments) == 1 and not named else None
        settings = sink.settings
        opened = sink.seal.opened(RETRY_LETTERS, argument)
        message = RetryMessage.from_json(opened, settings.source, settings.clickhouse_table)
        outbox = outbox_of(settings, message.branch)
    except OtherVersionError as error:
        metrics.refused("other_version")
        log.warning("message_refused", error=error)
        if (address := run_and_positions(argument, settings.source)) is not None:
            run, positions = address
            _report(sink, run, [LetterReport(position, LetterOutcome.FAILED, str(error)) for position in positions])
        return "other_version"
    except ForeignMessageError as error:
        metrics.refused("forged" if isinstance(error, ForgedMessageError) else "refused")
        log.warning("message_refused", error=error)
        return "refused"
    try:
        with ending_if_refused():
            reports = retry(sink.clickhouse, outbox, message)
    except Exception as error:
        counts = {"letters": len(message.positions)}
        if unexpected.is_unexpected(error):
            log.exception("letters_failed", task=self.request.id, run=message.run, **counts)
            error = unexpected_failure(error)
        else:
            log.warning("letters_failed", task=self.request.id, run=message.run, **counts, error=error)
        why = str(error) or "the task's time limit is over"
        reports = [LetterReport(str(position), LetterOutcome.FAILED, why) for position in message.positions]
    counts = {outcome.value: sum(report.outcome is outcome for report in reports) for outcome in LetterOutcome}
    log.info("letters_tried", task=self.request.id, run=message.run, **counts)
    _report(sink, message.run, reports)
    return "done"


def _report(sink: Sink, run: str, reports: Sequence[LetterReport]) -> None:
    key = letters_key(sink.settings.source, run)
    for report in reports:
        sink.payloads.report(key, sink.seal.line(key, report.to_json()))


def retry(clickhouse: ClickHouse, outbox: Outbox, message: RetryMessage) -> list[LetterReport]:
    """Insert the rows that ClickHouse accepts, delete their letters, write new reasons; return each letter's outcome.

    Raises:
        TransientError: ClickHouse does not answer; a second call completes the rest.
        FatalError: an operator is needed.
    """
    found = {letter.position: letter for letter in letters.find(clickhouse, outbox, message.positions)}
    retryable = [letter for letter in found.values() if not letter.discarded]
    refused = _insert_all(clickhouse, outbox, retryable, message.hex_columns)
    reach("letters.inserted")
    sent = [letter.position for letter in retryable]
    stored = letters.stored(clickhouse, outbox, sent)
    if unseen := [position for position in sent if position not in stored and position not in refused]:
        # The insert of another retry has the same token, and may still be storing the row.
        wait_for_older_inserts(clickhouse, outbox.settings, None, time.sleep)
        stored |= letters.stored(clickhouse, outbox, unseen)
    if stored:
        wait_for_older_inserts(clickhouse, outbox.settings, None, time.sleep)
        letters.remove(clickhouse, outbox, stored)
    reach("letters.removed")
    _write_reasons(clickhouse, outbox, found, {at: why for at, why in refused.items() if at not in stored})
    return [_outcome(position, found.get(position), stored, refused) for position in message.positions]


def _outcome(
    position: Position, letter: Letter | None, stored: Collection[Position], refused: Mapping[Position, str]
) -> LetterReport:
    name = str(position)
    if letter is None:
        return LetterReport(name, LetterOutcome.UNKNOWN)
    if letter.discarded:
        return LetterReport(name, LetterOutcome.DISCARDED)
    if position in stored:
        return LetterReport(name, LetterOutcome.RETRIED)
    if position in refused:
        return LetterReport(name, LetterOutcome.REFUSED, refused[position])
    return LetterReport(name, LetterOutcome.FAILED, _ROW_IS_MISSING)


def _insert_all(
    clickhouse: ClickHouse, outbox: Outbox, found: Collection[Letter], hex_columns: Collection[str]
) -> dict[Position, str]:
    """Insert each row that ClickHouse accepts; return the reasons of the others."""
    types = _types(clickhouse, outbox) if found else {}
    newest = newest_epoch(clickhouse, outbox.settings, STREAM) if found else None
    refused = {}
    for letter in found:
        try:
            row = restore(letter, types, hex_columns)
            cast_check.check(
                clickhouse, {name: text for name, text in values_of(letter).items() if text is not None}, types
            )
            newest = _insert(clickhouse, outbox, letter, row, newest)
        except PoisonError as error:
            refused[letter.position] = str(error)
    return refused


def _types(clickhouse: ClickHouse, outbox: Outbox) -> dict[str, str]:
    rows = clickhouse.rows(
        "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = {table:String} "
        "AND default_kind NOT IN ('ALIAS', 'MATERIALIZED')",
        parameters={"table": outbox.clickhouse_table},
    )
    return {str(name): str(kind) for name, kind in rows}


def _insert(
    clickhouse: ClickHouse, outbox: Outbox, letter: Letter, record: pa.RecordBatch, newest: Epoch | None
) -> Epoch | None:
    """Insert one row under the newest epoch; `newest` is the last known one. Return the present one."""
    payload, settings = encode(record), outbox.settings
    servers = partial(find_servers, clickhouse, settings, outbox.clickhouse_table)
    target = Target(
        outbox.clickhouse_table,
        "",
        outbox.view_gaps_table,
        guard(settings),
        settings.insert_timeout_s,
        servers=servers,
    )
    # Without times: an operator may have corrected the letter's time, so its position is looked up in the whole table.
    contents = Contents(record.schema)
    for attempt in range(1, _OWNERS_TRIED + 1):
        message = _message(outbox, letter.position, newest, len(payload))
        try:
            store_events(clickhouse, outbox, message, payload, target, contents=contents)
        except FatalError as error:
            if not is_thrown(error):
                raise
            if attempt == _OWNERS_TRIED:
                break
            newest = newest_epoch(clickhouse, settings, STREAM)
        else:
            return newest
    raise TransientError("readers take over this source one after another, or none runs; try again later")


def _message(outbox: Outbox, position: Position, newest: Epoch | None, size_bytes: int) -> Message:
    name = str(position)
    return Message(
        source=outbox.settings.source,
        lane=STREAM,
        # A new epoch has new tokens: one that ClickHouse remembers without its row holds up a letter no longer.
        epoch=newest.epoch if newest else 0,
        owner=newest.owner if newest else "",
        sequence=0,
        attempt=0,
        branch=outbox.clickhouse_table,
        table=outbox.clickhouse_table,
        token=hashlib.blake2b(f"letter\n{outbox.settings.source}\n{name}".encode(), digest_size=16).hexdigest(),
        rows=1,
        size_bytes=size_bytes,
        first=name,
        last=name,
    )


def _write_reasons(
    clickhouse: ClickHouse, outbox: Outbox, found: Mapping[Position, Letter], refused: Mapping[Position, str]
) -> None:
    changed: dict[str, list[Position]] = {}
    for position, reason in refused.items():
        if found[position].reason != reason:
            changed.setdefault(reason, []).append(position)
    for reason, positions in changed.items():
        letters.set_reason(clickhouse, outbox, positions, reason)
