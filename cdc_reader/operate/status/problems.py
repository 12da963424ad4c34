"""The states of three servers -> one line for each problem, with what to type.

Pure. A server that did not answer is None: the caller reports that, and nothing here depends on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.cdc_reader.postgres.errors import slot_missing
from outhaul.cdc_reader.session.reader_state import STALE_S
from outhaul.cdc_reader.slots import retained_wal
from outhaul.sink.quantities import duration_text
from outhaul.sink.view_gaps import count_gaps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outhaul.cdc_reader.operate.status.ask import ClickHouseState, PostgresState, RedisState
    from outhaul.cdc_reader.session.reader_state import ReaderState
    from outhaul.cdc_reader.slots.retained_wal import Slot
    from outhaul.sink.settings import Stream
    from outhaul.sink.view_gaps import Gap

# If rows wait and nothing has been stored for this long, that is a problem; in seconds.
STUCK_S = 60.0
# By how many seconds the reader's clock may be wrong before that is a problem.
CLOCK_OFF_S = 60.0


def judge(
    postgres: PostgresState | None,
    redis: RedisState | None,
    clickhouse: ClickHouseState | None,
    stream: Stream,
    now: float,
) -> list[str]:
    """Return what is wrong at Unix time `now`."""
    slot = postgres.slot if postgres else None
    wrong: list[str] = []
    if postgres and slot is None:
        wrong.append(str(slot_missing(stream.slot)))
    if redis and not redis.is_worked:
        wrong.append(f"{redis.queue_length} messages wait and no worker takes them. Start one: `outhaul worker`")
    if clickhouse and clickhouse.is_copy_due:
        wrong.append("a slot skipped events that are not all copied yet. Copy them: `outhaul verify --repair`")
    if clickhouse:
        wrong += clickhouse.views_not_exact
        wrong += _of_views(clickhouse.view_gaps)
    if redis:
        wrong += _of_failures(redis)
    if redis and redis.reader is None:
        wrong.append(_of_silence(slot, redis.reconnecting, stream))
    if slot:
        wrong += retained_wal.judge(slot, stream.slot)
        wrong += _of_clock(slot)
    if redis and redis.reader:
        wrong += _of_reader(redis.reader, redis.reader_age_s, slot, stream, now)
    return wrong


def _of_failures(redis: RedisState) -> list[str]:
    """Return a line for each unexpected failure, and for the error with which the reader ended if none runs now."""
    is_gone = redis.reader is None or redis.reader_age_s >= STALE_S
    return [str(one) for one in redis.failures if not one.is_end or (one.process == "reader" and is_gone)]


def _of_views(gaps: Sequence[Gap]) -> list[str]:
    """Return a line for each view that lacks events."""
    reasons = {gap.view: gap.reason for gap in gaps}
    rows = count_gaps(gaps)
    return [
        f"view {view or 'on a target (the reason may name it)'} lacks {rows[view]} events that it refused: {reason}. "
        "Mend the view; then the reader fills it within half a minute (docs/runbooks/view-refuses.md)"
        for view, reason in reasons.items()
    ]


def _of_reader(reader: ReaderState, age_s: float, slot: Slot | None, stream: Stream, now: float) -> list[str]:
    wrong = []
    ago = f"its last report is {age_s:.1f} s old"
    if slot and not slot.active:
        wrong.append(f"no session streams from slot {stream.slot!r}; the reader has ended or is reconnecting: {ago}")
    elif age_s >= STALE_S:
        wrong.append(f"the reader (process {reader.pid} on {reader.host}) is silent: {ago}")
    if reader.trouble:
        wrong.append(f"the reader waits: {reader.trouble}")
    # Both are by the reader's clock. One that is behind shows no delay at all.
    ahead_s = _reader_ahead_s(slot)
    if reader.lag_s - max(0.0, ahead_s) > STUCK_S and (reader.last_stored_at or 0) - ahead_s < now - STUCK_S:
        wrong.append(
            f"nothing has been stored for {STUCK_S:.0f} s although events wait. Check that a worker runs: "
            "`outhaul worker`"
        )
    return wrong


def _reader_ahead_s(slot: Slot | None) -> float:
    """Return how far the reader's clock is ahead of Postgres', negative if behind; 0 if that is little or unknown."""
    if slot is None or slot.reply_ahead_s is None or slot.session_s is None:
        return 0.0
    # A reply cannot come from the future, nor from before its session.
    off_s = max(slot.reply_ahead_s, -slot.reply_ahead_s - slot.session_s)
    return slot.reply_ahead_s if off_s >= CLOCK_OFF_S else 0.0


def _of_clock(slot: Slot) -> list[str]:
    """Return a line if the clock of the reader is wrong: then its delays and the times of its log lines are, too."""
    ahead_s = _reader_ahead_s(slot)
    if not ahead_s:
        return []
    # Whole minutes: the reply is a second old.
    off, where = duration_text(round(abs(ahead_s) / 60) * 60), "ahead of" if ahead_s > 0 else "behind"
    message = (
        f"the clock of the reader is off by {off}: it is {where} that of Postgres. Its delays are wrong by that much, "
        "and nothing else. On its machine, type `timedatectl set-ntp true`"
    )
    return [message]


def _of_silence(slot: Slot | None, reconnecting: str | None, stream: Stream) -> str:
    if reconnecting:
        return reconnecting
    if slot and slot.active:
        return (
            f"the client that streams from slot {stream.slot!r} (process {slot.active_pid} of Postgres) does not "
            "report to Redis. Check that it is an `outhaul reader`, that it is not suspended, and that it reaches Redis"
        )
    return "no reader runs. Start one with `outhaul reader`"
