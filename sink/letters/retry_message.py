"""Positions of dead letters -> the Celery message that asks for their retry, and back.

Pure. The rows stay in ClickHouse; the message carries names only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from outhaul.sink.errors import ForeignMessageError
from outhaul.sink.message_version import check_version
from outhaul.sink.position import parse_position

if TYPE_CHECKING:
    from outhaul.sink.position import Position

# A retry inserts each letter by itself. The limit keeps the task short, so that batches do not wait long for a worker.
MAX_POSITIONS = 25

# A worker reads this version and the previous one (ADR 14).
RETRY_MESSAGE_VERSION = 2

_RUN = re.compile(r"[0-9a-f]{32}")
_POSITION = re.compile(r"[0-9A-F]{1,8}/[0-9A-F]{1,8}#[0-9]{1,20}")
_NAME = re.compile(r".{1,255}", re.DOTALL)
_MAX_COLUMNS = 1600
_TABLE = re.compile(r"[^\0]{1,63}")
_FIELDS = {"version", "source", "branch", "run", "positions", "hex_columns"}


@dataclass(frozen=True, slots=True)
class RetryMessage:
    """Positions of letters of one outbox, to try again.

    `branch` is the ClickHouse table for the outbox's events. `run` names the Redis list for the reports. `hex_columns`
    are the columns that are bytea in Postgres, whose values are printed in hex.
    """

    source: str
    branch: str
    run: str
    positions: tuple[Position, ...]
    hex_columns: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the Celery argument: JSON types only."""
        return {
            "version": RETRY_MESSAGE_VERSION,
            "source": self.source,
            "branch": self.branch,
            "run": self.run,
            "positions": [str(position) for position in self.positions],
            "hex_columns": list(self.hex_columns),
        }

    @classmethod
    def from_json(cls, data: object, source: str, table: str = "") -> Self:
        """Check and read a Celery argument.

        Args:
            data: the received argument.
            source: name of the pipeline.
            table: ClickHouse table for the events of the pipeline's first outbox, the only one that version 1 had.

        Raises:
            OtherVersionError: the message is neither of this version nor of the previous one.
            ForeignMessageError: it is not a retry message for this source.
        """
        if not isinstance(data, dict):
            raise _foreign()
        if check_version(data, RETRY_MESSAGE_VERSION, "a message to retry dead letters") < RETRY_MESSAGE_VERSION:
            data = {"branch": table} | data if "branch" not in data else {}
        if data.keys() != _FIELDS:
            raise _foreign()
        run, at, names = data["run"], data["positions"], data["hex_columns"]
        if (
            data["source"] != source
            or not _is_text(data["branch"], _TABLE)
            or not _is_text(run, _RUN)
            or not isinstance(at, list)
            or not isinstance(names, list)
        ):
            raise _foreign()
        if not 0 < len(at) <= MAX_POSITIONS or not all(_is_text(text, _POSITION) for text in at):
            raise _foreign()
        if len(names) > _MAX_COLUMNS or not all(_is_text(name, _NAME) for name in names):
            raise _foreign()
        return cls(source, data["branch"], run, tuple(parse_position(text) for text in at), tuple(names))


def run_and_positions(data: object, source: str) -> tuple[str, list[str]] | None:
    """Return run and positions of a retry message of any version, to report on it; None if it lacks one of them.

    Return None also if the message is for another source. These fields have the same names and forms in all versions.
    """
    match data:
        case {"source": str(named), "run": str(run), "positions": [*at]} if named == source and _RUN.fullmatch(run):
            return (run, at) if len(at) <= MAX_POSITIONS and all(_is_text(text, _POSITION) for text in at) else None
    return None


def _is_text(value: object, form: re.Pattern[str]) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None


def _foreign() -> ForeignMessageError:
    return ForeignMessageError(
        "a malformed message to retry dead letters was received, or one for another source",
        todo="Find out who else writes to this queue",
    )
