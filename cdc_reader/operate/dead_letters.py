"""Positions or a filter -> dead letters that are listed, retried by the workers, discarded or exported.

Edge: ClickHouse has the letters, Postgres has the types of the columns, Redis carries the retry messages and the
workers' answers. A worker reads and stores the rows of a retry; this process never has them.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, LiteralString

from outhaul.cdc_reader.postgres.connect import connect_primary
from outhaul.cdc_reader.postgres.errors import table_missing
from outhaul.sink.app import SinkApp, make_app
from outhaul.sink.errors import Exit, FatalError, PoisonError
from outhaul.sink.letters import dead_letters
from outhaul.sink.letters.restore import values_of
from outhaul.sink.letters.retry_message import MAX_POSITIONS, RetryMessage
from outhaul.sink.letters.retry_task import LetterOutcome, LetterReport
from outhaul.sink.position import parse_position
from outhaul.sink.redis_keys import letters_key
from outhaul.sink.seal import seal_of
from outhaul.sink.task_names import RETRY_LETTERS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.letters.restore import Letter
    from outhaul.sink.position import Position
    from outhaul.sink.redis.payloads import Payloads
    from outhaul.sink.settings import Outbox, Settings

_BYTEA: LiteralString = """
    SELECT attname FROM pg_attribute
    WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped AND atttypid = 'bytea'::regtype"""
_POLL_S = 1


def position_of(text: str) -> Position:
    """Read a position as `list` prints it.

    Raises:
        FatalError: the text is not a position.
    """
    try:
        return parse_position(text)
    except FatalError as error:
        todo = "Pass a position as `outhaul dlq list` prints it: 0/1A2B3C#0"
        raise FatalError(error.message, todo=todo, exit_code=Exit.USAGE) from None


def chosen(
    clickhouse: ClickHouse, outbox: Outbox, names: Sequence[str], *, everything: bool, reason: str
) -> list[Position]:
    """Return the positions that an operator chose: by name, all of them, or by a text in the reason.

    Raises:
        FatalError: none or several of the three ways are used, or a name is not a position.
        PipelineError: ClickHouse refuses or does not answer.
    """
    if sum((bool(names), everything, bool(reason))) != 1:
        raise FatalError(
            "pass exactly one of: positions, --all, --reason TEXT",
            todo="`outhaul dlq list` prints positions and reasons",
            exit_code=Exit.USAGE,
        )
    if names:
        return sorted({position_of(name) for name in names})
    return dead_letters.positions(clickhouse, outbox, dead_letters.Filter(reason=reason))


def to_json(letter: Letter) -> dict[str, Any]:
    """Return a letter in JSON types; its values as Postgres prints them, or one text if they cannot be parsed."""
    try:
        row: object = values_of(letter)
    except PoisonError:
        row = letter.row
    return {
        "position": str(letter.position),
        "row": row,
        "reason": letter.reason,
        "committed_at": _iso(letter.committed_at_us),
        "ingested_at": _iso(letter.ingested_at_us),
        "discarded": letter.discarded,
    }


def json_text(value: object, indent: int | None = None) -> str:
    """Return JSON that can be written to any terminal and file; bytes that are not UTF-8 stay escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


def exported(clickhouse: ClickHouse, outbox: Outbox, wanted: dead_letters.Filter) -> Iterator[str]:
    """Yield one line of JSON for each letter, by position.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    for letter in dead_letters.each(clickhouse, outbox, wanted):
        yield json_text(to_json(letter))


@dataclass(slots=True)
class Retried:
    """The result of a retry, by position; no worker has answered for the `unanswered` ones."""

    retried: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    discarded: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)

    @property
    def is_fine(self) -> bool:
        """Tell whether every letter is stored."""
        return not (self.refused or self.failed or self.unknown or self.discarded or self.unanswered)

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return {
            "retried": self.retried,
            "refused": self.refused,
            "failed": self.failed,
            "unknown": self.unknown,
            "discarded": self.discarded,
            "unanswered": self.unanswered,
        }


def retry(
    outbox: Outbox,
    payloads: Payloads,
    positions: Sequence[Position],
    *,
    wait_s: float,
    on_answered: Callable[[int], None] = lambda _: None,
) -> Retried:
    """Have the workers try letters again; return their answers.

    Args:
        outbox: names and addresses.
        payloads: for the answers.
        positions: which letters.
        wait_s: longest wait for the next answer, in seconds; workers still retry what they answer for later.
        on_answered: called with the number of letters that workers have answered for.

    Raises:
        PipelineError: Postgres or Redis refuses or does not answer; a part may have been sent, which is harmless.
    """
    hexes = hex_columns(outbox)
    run = secrets.token_hex(16)
    app = make_app(outbox.settings)
    for some in dead_letters.chunks(positions, MAX_POSITIONS):
        _send(app, RetryMessage(outbox.settings.source, outbox.clickhouse_table, run, tuple(some), hexes))
    return _collect(outbox.settings, payloads, run, positions, wait_s, on_answered)


def hex_columns(outbox: Outbox) -> tuple[str, ...]:
    """Return the outbox's columns whose values Postgres prints in hex.

    Raises:
        PipelineError: Postgres refuses or does not answer, or has no outbox.
    """
    with connect_primary(outbox.settings) as conn:
        is_there = conn.fetch_value("SELECT to_regclass(%s) IS NOT NULL", [outbox.sql_table])
        rows = conn.fetch(_BYTEA, [outbox.sql_table])
    if not is_there:
        raise table_missing(outbox.table)
    return tuple(str(row["attname"]) for row in rows)


def discard(clickhouse: ClickHouse, outbox: Outbox, letters: Collection[Letter]) -> list[str]:
    """Delete the values of letters; return the positions. A letter whose event is stored is removed instead.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    positions = {letter.position for letter in letters}
    held = dead_letters.stored(clickhouse, outbox, positions)
    dead_letters.remove(clickhouse, outbox, held)
    dead_letters.discard(clickhouse, outbox, positions - held)
    return [str(position) for position in sorted(positions - held)]


def _send(app: SinkApp, order: RetryMessage) -> None:
    first, last = order.positions[0], order.positions[-1]
    app.send(
        RETRY_LETTERS,
        order.to_json(),
        # The worker's log has the run; the Redis list of the answers is named after it.
        task_id=f"{order.run}-{first}",
        summary=f"({order.source}: {len(order.positions)} letters, {first} to {last})",
    )


def _collect(
    settings: Settings,
    payloads: Payloads,
    run: str,
    positions: Sequence[Position],
    wait_s: float,
    on_answered: Callable[[int], None],
) -> Retried:
    result, open_ = Retried(), {str(position) for position in positions}
    key, answered_at, seal = letters_key(settings.source, run), time.monotonic(), seal_of(settings)
    while open_ and time.monotonic() - answered_at < wait_s:
        for line in payloads.reports(key, wait_s=_POLL_S):
            bare = seal.opened_line(key, line)
            answer = None if bare is None else LetterReport.from_json(bare)
            if answer is not None and answer.position in open_:
                open_.discard(answer.position)
                _note(result, answer)
            answered_at = time.monotonic()
        on_answered(len(positions) - len(open_))
    result.unanswered = sorted(open_)
    return result


def _note(result: Retried, word: LetterReport) -> None:
    position, why = word.position, word.why
    match word.outcome:
        case LetterOutcome.RETRIED:
            result.retried.append(position)
        case LetterOutcome.REFUSED:
            result.refused[position] = why
        case LetterOutcome.FAILED:
            result.failed[position] = why
        case LetterOutcome.UNKNOWN:
            result.unknown.append(position)
        case LetterOutcome.DISCARDED:
            result.discarded.append(position)


def _iso(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="milliseconds")
