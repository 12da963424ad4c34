"""Celery message with positions of dead letters -> their rows in the event table, and the letters gone.

Edge: the second task of the sink. In this order, so that a crash between any two steps loses and repeats nothing:

1. *insert*: each row by a statement of its own, which leaves it out where the event table has its position. Its token
   is made of the position alone, so of two retries at the same moment one stores nothing.
2. *wait*: until every insert of the source that began before that has ended, in whichever lane. An insert that begins
   later finds the position in the event table, so no insert can find the position in neither table.
3. *remove*: only letters whose position the event table is seen to hold.

A crash before 3 leaves a row in both tables; the next retry finds it stored, and removes the letter.

Source: https://clickhouse.com/docs/sql-reference/statements/alter/delete
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

import structlog
from billiard.exceptions import SoftTimeLimitExceeded
from celery import shared_task

from outhaul.sink.batch import Message, encode
from outhaul.sink.clickhouse_errors import THROW_IF
from outhaul.sink.errors import FatalError, ForeignMessageError, PipelineError, PoisonError, TransientError
from outhaul.sink.failpoint import reach
from outhaul.sink.fence import newest_epoch, wait_for_older_inserts
from outhaul.sink.insert import Contents, parameters, statement
from outhaul.sink.insert import settings as insert_settings
from outhaul.sink.lanes import STREAM
from outhaul.sink.letters import cast_check
from outhaul.sink.letters import dead_letters as letters
from outhaul.sink.letters.restore import restore, values_of
from outhaul.sink.letters.retry_message import Order, places
from outhaul.sink.message_version import OtherVersionError
from outhaul.sink.redis_keys import letters_key
from outhaul.sink.seal import ForgedMessageError
from outhaul.sink.task import outbox_of, sink_of
from outhaul.sink.task_names import RETRY_LETTERS
from outhaul.sink.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import pyarrow as pa

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.letters.restore import Letter
    from outhaul.sink.position import Position
    from outhaul.sink.settings import Outbox, Settings
    from outhaul.sink.task import Sink

log = structlog.get_logger("outhaul.sink")

_OWNERS_TRIED = 3


class Fate(StrEnum):
    """What became of a letter."""

    RETRIED = "retried"  # the event table has the row, the letter is gone
    REFUSED = "refused"  # ClickHouse refuses it still, the letter has the new reason
    UNKNOWN = "unknown"  # there is no letter at this position
    DISCARDED = "discarded"  # its values are gone
    FAILED = "failed"  # not done, for a cause that has nothing to do with this letter


@dataclass(frozen=True, slots=True)
class Word:
    """One letter's fate; `why` is the reason or the error."""

    position: str
    fate: Fate
    why: str = ""

    def to_json(self) -> str:
        """Return the line."""
        return json.dumps({"position": self.position, "fate": self.fate.value, "why": self.why})

    @classmethod
    def from_json(cls, line: bytes) -> Self | None:
        """Read a line; None when it is none of ours."""
        try:
            data = json.loads(line)
            return cls(str(data["position"]), Fate(data["fate"]), str(data["why"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None


@shared_task(name=RETRY_LETTERS, bind=True, max_retries=0)  # type: ignore[untyped-decorator] # celery has no types
def retry_letters(self: Any, *arguments: object, **named: object) -> str:
    """Try some dead letters again, and say what became of each; a failure leaves them as they are.

    Args:
        self: the task.
        arguments: one `outhaul.sink.letters.retry_message.Order` as JSON; whatever else came is refused.
        named: nothing.
    """
    sink = sink_of(self.app)
    try:
        argument = arguments[0] if len(arguments) == 1 and not named else None
        settings = sink.settings
        order = Order.from_json(sink.seal.opened(RETRY_LETTERS, argument), settings.source, settings.clickhouse_table)
        outbox = outbox_of(settings, order.branch)
    except OtherVersionError as error:
        metrics.refused("other_version")
        log.warning("message_refused", error=error)
        if (asked := places(argument, settings.source)) is not None:
            run, positions = asked
            _answer(sink, run, [Word(position, Fate.FAILED, str(error)) for position in positions])
        return "other_version"
    except ForeignMessageError as error:
        metrics.refused("forged" if isinstance(error, ForgedMessageError) else "refused")
        log.warning("message_refused", error=error)
        return "refused"
    try:
        words = retry(sink.clickhouse, outbox, order)
    except (PipelineError, SoftTimeLimitExceeded) as error:
        log.warning("letters_failed", task=self.request.id, run=order.run, letters=len(order.positions), error=error)
        why = str(error) or "out of time"
        words = [Word(str(position), Fate.FAILED, why) for position in order.positions]
    fates = {fate.value: sum(word.fate is fate for word in words) for fate in Fate}
    log.info("letters_tried", task=self.request.id, run=order.run, **fates)
    _answer(sink, order.run, words)
    return "done"


def _answer(sink: Sink, run: str, words: Sequence[Word]) -> None:
    key = letters_key(sink.settings.source, run)
    for word in words:
        sink.payloads.report(key, sink.seal.line(key, word.to_json()))


def retry(clickhouse: ClickHouse, outbox: Outbox, order: Order) -> list[Word]:
    """Store what can be stored, remove its letters, write the new reasons; return the fate of each.

    Raises:
        TransientError: ClickHouse does not answer; what was not done can be done again.
        FatalError: an operator is needed.
    """
    found = {letter.position: letter for letter in letters.find(clickhouse, outbox, order.positions)}
    open_ = [letter for letter in found.values() if not letter.discarded]
    refused = _insert_all(clickhouse, outbox, open_, order.hex_columns)
    reach("letters.inserted")
    held = letters.stored(clickhouse, outbox, [letter.position for letter in open_])
    if held:
        wait_for_older_inserts(clickhouse, outbox.settings, None, time.sleep)
        letters.remove(clickhouse, outbox, held)
    reach("letters.removed")
    _write_reasons(clickhouse, outbox, found, {at: why for at, why in refused.items() if at not in held})
    return [_word(position, found.get(position), held, refused) for position in order.positions]


def _word(
    position: Position, letter: Letter | None, held: Collection[Position], refused: Mapping[Position, str]
) -> Word:
    name = str(position)
    if letter is None:
        return Word(name, Fate.UNKNOWN)
    if letter.discarded:
        return Word(name, Fate.DISCARDED)
    if position in held:
        return Word(name, Fate.RETRIED)
    if position in refused:
        return Word(name, Fate.REFUSED, refused[position])
    return Word(name, Fate.FAILED, "the event table does not show the row that was inserted")


def _insert_all(
    clickhouse: ClickHouse, outbox: Outbox, found: Collection[Letter], hex_columns: Collection[str]
) -> dict[Position, str]:
    """Insert the rows that can be stored; return why the others cannot."""
    types = _types(clickhouse, outbox) if found else {}
    owner = _owner(clickhouse, outbox.settings) if found else ""
    refused = {}
    for letter in found:
        try:
            row = restore(letter, types, hex_columns)
            cast_check.check(
                clickhouse, {name: text for name, text in values_of(letter).items() if text is not None}, types
            )
            owner = _insert(clickhouse, outbox, letter, row, owner)
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


def _insert(clickhouse: ClickHouse, outbox: Outbox, letter: Letter, record: pa.RecordBatch, owner: str) -> str:
    """Insert one row under the newest epoch's owner, who was `owner` a moment ago; return who it is."""
    payload = encode(record)
    events = outbox.clickhouse_table
    # No times: whoever mended the letter may have mended its time, so its position is looked for everywhere.
    contents = Contents(record.schema)
    for attempt in range(1, _OWNERS_TRIED + 1):
        message = _message(outbox, letter.position, owner, len(payload))
        try:
            clickhouse.command(
                statement(events, outbox.settings.epochs_table, contents, [events]),
                parameters=parameters(message, contents),
                settings=insert_settings(message, outbox.settings.insert_timeout_s),
                data=payload,
            )
        except FatalError as error:
            if error.code != THROW_IF:
                raise
            if attempt == _OWNERS_TRIED:
                break
            owner = _owner(clickhouse, outbox.settings)
        else:
            return owner
    raise TransientError("one reader after another takes over this source; try again later")


def _message(outbox: Outbox, position: Position, owner: str, size_bytes: int) -> Message:
    name = str(position)
    return Message(
        source=outbox.settings.source,
        lane=STREAM,
        epoch=0,
        owner=owner,
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


def _owner(clickhouse: ClickHouse, settings: Settings) -> str:
    newest = newest_epoch(clickhouse, settings, STREAM)
    return newest.owner if newest else ""


def _write_reasons(
    clickhouse: ClickHouse, outbox: Outbox, found: Mapping[Position, Letter], refused: Mapping[Position, str]
) -> None:
    changed: dict[str, list[Position]] = {}
    for position, reason in refused.items():
        if found[position].reason != reason:
            changed.setdefault(reason, []).append(position)
    for reason, positions in changed.items():
        letters.give_reason(clickhouse, outbox, positions, reason)
