"""The present slot, outbox and ClickHouse -> what a change of the slot would skip, store again or lose.

Edge: reads from all three, changes nothing. The outbox has what is committed, ClickHouse what is stored. The difference
is what the slot has not brought yet.

Source: docs/adr/0008-the-outbox-is-a-second-log.md
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from outhaul.cdc_reader.outbox.compare import Comparison
from outhaul.cdc_reader.outbox.heal import ASK_TIMEOUT_S, Tally
from outhaul.cdc_reader.outbox.id_ranges import Scope
from outhaul.cdc_reader.outbox.snapshot import now
from outhaul.cdc_reader.outbox.table_shape import describe
from outhaul.cdc_reader.postgres.connect import connect_primary, connect_stream
from outhaul.cdc_reader.postgres.slot_view import SlotFacts, slot_facts
from outhaul.cdc_reader.session.recovery import ask_stored_positions
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.fence import newest_epoch
from outhaul.sink.position import NO_LSN, Lsn
from outhaul.sink.quoting import bindable

if TYPE_CHECKING:
    from outhaul.sink.settings import Outbox, Stream

# Open transactions that write: a new slot is ready only when they have ended.
_OPEN = (
    "SELECT pid, extract(epoch FROM now() - xact_start)::int AS seconds, left(query, 60) AS query "
    "FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() "
    "UNION ALL SELECT NULL, extract(epoch FROM now() - prepared)::int, 'PREPARE TRANSACTION ' || quote_literal(gid) "
    "FROM pg_prepared_xacts ORDER BY seconds DESC LIMIT 5"
)


@dataclass(frozen=True, slots=True)
class Unread:
    """Committed events that ClickHouse lacks: their number, first and last id, first and last time (ISO 8601).

    If they are in several outboxes, `tables` has their number in each, and the ids, which belong to a table, are None.
    """

    events: int = 0
    first_id: int | None = None
    last_id: int | None = None
    first_time: str | None = None
    last_time: str | None = None
    tables: dict[str, int] = field(default_factory=dict)

    @property
    def which(self) -> str:
        """Description of the events: their ids, or their outboxes."""
        if not self.tables:
            return f"ids {self.first_id} to {self.last_id}"
        return ", ".join(f"{count} of {table}" for table, count in self.tables.items())


@dataclass(frozen=True, slots=True)
class Plan:
    """The present state, and the effect of a change.

    `stored_ahead` is the number of events after the slot's position that ClickHouse has stored already. `healed` is the
    number of skipped events that are copied from the outbox, `lost` of those that are not. A new slot waits for
    `open_transactions`.
    """

    action: str
    slot: dict[str, Any] | None
    problem: str | None
    confirmed: str | None
    unread: Unread
    stored_ahead: int
    healed: int
    lost: int
    open_transactions: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the plan in JSON types."""
        return asdict(self)


def make_plan(stream: Stream, action: str, *, skips: bool, heals: bool) -> Plan:
    """Read the state of all three, and return the plan.

    Args:
        stream: stream of the slot.
        action: description of the change.
        skips: whether the slot skips events that it has not brought yet.
        heals: whether skipped events are copied from the outbox.

    Raises:
        PipelineError: a server refuses or does not answer: then no plan can be made.
    """
    with ClickHouse.of(stream.settings, timeout_s=ASK_TIMEOUT_S) as clickhouse:
        with connect_stream(stream.settings) as conn:
            facts = slot_facts(conn, stream)
        with connect_primary(stream.settings) as conn:
            unread = count_unread(stream, clickhouse)
            open_transactions = conn.fetch(_OPEN) if skips else []
        ahead = _stored_ahead(stream, clickhouse, facts)
    skipped = unread.events if skips else 0
    return Plan(
        action=action,
        slot=_slot_json(facts),
        problem=facts.problem if facts else "it does not exist",
        confirmed=str(facts.confirmed) if facts and facts.confirmed else None,
        unread=unread,
        stored_ahead=ahead,
        healed=skipped if heals else 0,
        lost=0 if heals else skipped,
        open_transactions=open_transactions,
    )


def count_unread(stream: Stream, clickhouse: ClickHouse) -> Unread:
    """Return the stream's events that are committed in the outboxes and not in ClickHouse.

    Raises:
        PipelineError: a server refuses or does not answer.
    """
    found = {outbox.table: count_unread_of(outbox, stream, clickhouse) for outbox in stream.settings.outboxes()}
    some = {table: unread for table, unread in found.items() if unread.events}
    if len(some) <= 1:
        return next(iter(some.values()), Unread())
    return Unread(
        events=sum(unread.events for unread in some.values()),
        first_time=min(filter(None, (unread.first_time for unread in some.values())), default=None),
        last_time=max(filter(None, (unread.last_time for unread in some.values())), default=None),
        tables={table: unread.events for table, unread in some.items()},
    )


def count_unread_of(outbox: Outbox, stream: Stream, clickhouse: ClickHouse) -> Unread:
    """Return the same as `count_unread`, for one outbox.

    Raises:
        PipelineError: a server refuses or does not answer.
    """
    tally, first, last = Tally(), None, None
    with now(stream.settings) as line, line.connect() as conn:
        shape = describe(conn, outbox, stream)
        comparison = Comparison(line, shape, clickhouse, outbox, Scope())
        for found in comparison.ranges(comparison.intervals(Scope())):
            tally.add(found)
            if len(found.missing):
                first = int(found.missing[0]) if first is None else first
                last = int(found.missing[-1])
        if first is None:
            return Unread()
        times = conn.fetch(
            f"SELECT min(event_date_time)::text AS first, max(event_date_time)::text AS last "  # noqa: S608 - names are quoted
            f"FROM {bindable(shape.quoted_table)} WHERE id BETWEEN %s AND %s",
            [first, last],
        )[0]
    return Unread(tally.missing, first, last, times["first"], times["last"])


def _stored_ahead(stream: Stream, clickhouse: ClickHouse, facts: SlotFacts | None) -> int:
    if facts is None or facts.confirmed is None or newest_epoch(clickhouse, stream.settings, stream.lane) is None:
        return 0
    at = Lsn(facts.confirmed) or NO_LSN
    return sum(ask_stored_positions(clickhouse, stream, outbox, at).rows for outbox in stream.settings.outboxes())


def _slot_json(facts: SlotFacts | None) -> dict[str, Any] | None:
    if facts is None:
        return None
    found = asdict(facts)
    return found | {"confirmed": str(facts.confirmed) if facts.confirmed else None}
