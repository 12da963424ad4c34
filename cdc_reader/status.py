"""Three servers and the reader's own word -> one snapshot, and whether something in it is wrong.

Edge: asks; a server that does not answer is part of the answer.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from cdc_reader.ledger import PATIENCE_S
from cdc_reader.outbox.due import due
from cdc_reader.pausing.wish import ask
from cdc_reader.preflight import connect
from cdc_reader.slot_care import retained
from cdc_reader.sqlstate import slot_missing
from cdc_reader.state import ReaderState
from sink.batch import pulse_key, reader_key, reconnecting_key
from sink.errors import PipelineError
from sink.payloads import ALIVE_S, SOCKET_TIMEOUT_S
from sink.pulse import ANY, PULSE_S
from sink.watchdog import DEAF_S

if TYPE_CHECKING:
    from cdc_reader.pausing.gate import Pause
    from cdc_reader.slot_care.retained import Slot
    from sink.clickhouse import ClickHouse
    from sink.payloads import Payloads
    from sink.settings import Settings

_STORED = """
    SELECT count(), max(cdc_ingested_at), toUnixTimestamp64Micro(max(cdc_ingested_at)) / 1e6
    FROM {table} WHERE cdc_source = {{source:String}}"""

_LETTERS = "SELECT count() FROM {table} WHERE cdc_source = {{source:String}} AND discarded_at IS NULL"

_PARTS = """
    SELECT count(), sum(bytes_on_disk) FROM system.parts
    WHERE database = currentDatabase() AND table = {table:String} AND active"""

# A stored batch older than this while rows wait is worth a word, in seconds.
_STUCK_S = 60.0
# A message that has just come is no sign of trouble, in seconds.
_SECOND_LOOK_S = 1.0


@dataclass(slots=True)
class Status:
    """A snapshot; `wrong` names, in plain words, all that is not as it should be."""

    slot: Slot | None = None
    reader: ReaderState | None = None
    # The pause that an operator asked for, whether or not a reader runs.
    pause: Pause | None = None
    # Why a reader has no session just now, in its own words.
    reconnecting: str | None = None
    queue_length: int | None = None
    rows: int | None = None
    dead_letters: int | None = None
    parts: int | None = None
    bytes_on_disk: int | None = None
    last_stored_at: float | None = None
    # How long each of these can go on before it is noticed and acted upon, in seconds.
    noticed_within_s: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the snapshot in JSON types."""
        return asdict(self)


def gather(settings: Settings, payloads: Payloads, clickhouse: ClickHouse, *, with_growth: bool = False) -> Status:
    """Ask all three servers; none of them can make it fail. For `with_growth` the slot is watched for some seconds."""
    status = Status(noticed_within_s=bounds(settings))
    for ask_server in (_ask_postgres, _ask_redis, _ask_clickhouse):
        try:
            ask_server(status, settings, payloads, clickhouse)
        except PipelineError as error:
            status.wrong.append(str(error))
    if with_growth and status.slot is not None:
        with suppress(PipelineError):
            status.slot = retained.watch(status.slot, lambda: _slot(settings), time.sleep)
    _judge(status, settings)
    return status


def bounds(settings: Settings) -> dict[str, float]:
    """Return for each kind of silence how long it can last before it is noticed, in seconds.

    - postgres: no byte on the wire, though a reply was asked for; the reader opens a new session
    - redis: no answer to a command; it is repeated, and feedback to Postgres goes on meanwhile
    - worker: messages wait and no task begins; the watchdog starts Celery again
    - batch: its task shows no sign of life; the batch is sent again
    - clickhouse: no answer to an insert; the same batch is tried again
    - stored: events wait and nothing is stored; this page says so
    """
    return {
        "postgres": settings.receive_timeout_s,
        "redis": SOCKET_TIMEOUT_S,
        "worker": DEAF_S + PULSE_S,
        "batch": PATIENCE_S + ALIVE_S,
        "clickhouse": settings.insert_timeout_s,
        "stored": _STUCK_S,
    }


def _ask_postgres(status: Status, settings: Settings, _payloads: Payloads, _clickhouse: ClickHouse) -> None:
    status.slot = _slot(settings)
    if status.slot is None:
        status.wrong.append(str(slot_missing(settings.slot)))


def _slot(settings: Settings) -> Slot | None:
    with connect(settings.postgres_dsn.get_secret_value()) as conn:
        return retained.look(conn, settings.slot)


def _ask_redis(status: Status, settings: Settings, payloads: Payloads, _clickhouse: ClickHouse) -> None:
    line = payloads.text(reader_key(settings.source))
    status.reader = ReaderState.from_json(line) if line else None
    status.pause = status.reader.pause if status.reader else None
    status.reconnecting = payloads.text(reconnecting_key(settings.source)) if status.reader is None else None
    status.queue_length = payloads.length(settings.queue)
    if status.queue_length and not _works(settings, payloads):
        status.wrong.append(
            f"{status.queue_length} messages wait and no worker takes them. Start one: `outhaul worker`"
        )


def _works(settings: Settings, payloads: Payloads) -> bool:
    for wait_s in (0.0, _SECOND_LOOK_S):
        time.sleep(wait_s)
        if payloads.text(pulse_key(settings.source, ANY)) or not payloads.length(settings.queue):
            return True
    return False


def _ask_clickhouse(status: Status, settings: Settings, _payloads: Payloads, clickhouse: ClickHouse) -> None:
    source = {"source": settings.source}
    rows, _, last = clickhouse.rows(_STORED.format(table=settings.clickhouse_table), parameters=source)[0]
    dead = clickhouse.rows(_LETTERS.format(table=settings.dead_letters_table), parameters=source)[0][0]
    parts, size = clickhouse.rows(_PARTS, parameters={"table": settings.clickhouse_table})[0]
    status.rows, status.dead_letters, status.parts, status.bytes_on_disk = rows, dead, parts, size
    status.last_stored_at = float(last) if rows else None
    if due(clickhouse, settings) is not None:
        status.wrong.append("a slot skipped events that are not all copied yet. Copy them: `outhaul verify --repair`")
    # Asked last: it knows of a pause also where no reader does, and without an answer the reader's own word stands.
    status.pause = ask(clickhouse, settings).pause


def _judge(status: Status, settings: Settings) -> None:
    slot, reader = status.slot, status.reader
    if reader is None:
        _judge_silence(status, settings)
    if slot:
        status.wrong += retained.judge(slot, settings.slot)
    if slot and not slot.active and reader is not None:
        status.wrong.append(f"nobody streams from slot {settings.slot!r}; the reader is reconnecting")
    if reader and reader.trouble:
        status.wrong.append(f"the reader waits: {reader.trouble}")
    if reader and reader.lag_s > _STUCK_S and (reader.last_stored_at or 0) < time.time() - _STUCK_S:
        status.wrong.append(f"nothing has been stored for {_STUCK_S:.0f} s though events wait: is a worker running?")


def _judge_silence(status: Status, settings: Settings) -> None:
    slot = status.slot
    if status.queue_length is None:
        # Redis does not answer, which has been said; whether a reader runs is not known.
        return
    if status.reconnecting:
        status.wrong.append(status.reconnecting)
    elif slot and slot.active:
        status.wrong.append(
            f"the session that streams from slot {settings.slot!r} (process {slot.active_pid} of Postgres) says "
            "nothing in Redis: does its reader reach Redis, is it asleep, is it one of `outhaul reader`?"
        )
    else:
        status.wrong.append("no reader runs. Start one with `outhaul reader`")
