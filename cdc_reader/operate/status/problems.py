"""The answers of three servers -> in plain words, all that is not as it should be.

Pure. A server that did not answer is None here: who asked it has said so, and nothing is concluded from its silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.cdc_reader.postgres.errors import slot_missing
from outhaul.cdc_reader.slots import retained_wal

if TYPE_CHECKING:
    from outhaul.cdc_reader.operate.status.ask import OfClickHouse, OfPostgres, OfRedis
    from outhaul.cdc_reader.session.state import ReaderState
    from outhaul.cdc_reader.slots.retained_wal import Slot
    from outhaul.sink.settings import Settings

# A stored batch older than this while rows wait is worth a word, in seconds.
STUCK_S = 60.0


def judge(
    postgres: OfPostgres | None,
    redis: OfRedis | None,
    clickhouse: OfClickHouse | None,
    settings: Settings,
    now: float,
) -> list[str]:
    """Return what is wrong at Unix time `now`."""
    slot = postgres.slot if postgres else None
    wrong: list[str] = []
    if postgres and slot is None:
        wrong.append(str(slot_missing(settings.slot)))
    if redis and not redis.is_worked:
        wrong.append(f"{redis.queue_length} messages wait and no worker takes them. Start one: `outhaul worker`")
    if clickhouse and clickhouse.is_copy_due:
        wrong.append("a slot skipped events that are not all copied yet. Copy them: `outhaul verify --repair`")
    if redis and redis.reader is None:
        wrong.append(_of_silence(slot, redis.reconnecting, settings))
    if slot:
        wrong += retained_wal.judge(slot, settings.slot)
    if redis and redis.reader:
        wrong += _of_reader(redis.reader, slot, settings, now)
    return wrong


def _of_reader(reader: ReaderState, slot: Slot | None, settings: Settings, now: float) -> list[str]:
    wrong = []
    if slot and not slot.active:
        wrong.append(f"nobody streams from slot {settings.slot!r}; the reader is reconnecting")
    if reader.trouble:
        wrong.append(f"the reader waits: {reader.trouble}")
    if reader.lag_s > STUCK_S and (reader.last_stored_at or 0) < now - STUCK_S:
        wrong.append(f"nothing has been stored for {STUCK_S:.0f} s though events wait: is a worker running?")
    return wrong


def _of_silence(slot: Slot | None, reconnecting: str | None, settings: Settings) -> str:
    if reconnecting:
        return reconnecting
    if slot and slot.active:
        return (
            f"the session that streams from slot {settings.slot!r} (process {slot.active_pid} of Postgres) says "
            "nothing in Redis: does its reader reach Redis, is it asleep, is it one of `outhaul reader`?"
        )
    return "no reader runs. Start one with `outhaul reader`"
