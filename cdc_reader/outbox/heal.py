"""A line -> the rows of the table's share that ClickHouse lacks, stored by the sink, once.

Edge: joins this folder's files. A later run finds the rows of an earlier one stored, so a run may end at any point and
be started again. Only one copy of a source runs at a time: a lock in Postgres names the other one, and the fence in
ClickHouse refuses its inserts. The fence is raised, and older inserts have ended, before the sides are compared.

Source: docs/adr/0008-the-outbox-is-a-second-log.md
"""

from __future__ import annotations

import secrets
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, LiteralString

import structlog

from outhaul.cdc_reader.outbox.compare import Comparison
from outhaul.cdc_reader.outbox.delivery import Delivery
from outhaul.cdc_reader.outbox.id_ranges import Scope
from outhaul.cdc_reader.outbox.parallel import in_parallel
from outhaul.cdc_reader.outbox.rows import Wanted, batches
from outhaul.cdc_reader.outbox.snapshot import copied_lsn
from outhaul.cdc_reader.outbox.table_shape import describe
from outhaul.cdc_reader.postgres.connect import connect_primary
from outhaul.sink.app import make_app
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import FatalError
from outhaul.sink.fence import EpochOverError, as_owner, newest_epoch, raise_epoch, wait_for_older_inserts
from outhaul.sink.lanes import COPY, COPY_DONE, fence
from outhaul.sink.position import History, Lsn
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.replicas import IN_SEQUENCE, find_servers
from outhaul.sink.sql import query
from outhaul.sink.view_gaps import ViewFeed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from outhaul.cdc_reader.capture.assemble import Assembled
    from outhaul.cdc_reader.capture.frame import Ints
    from outhaul.cdc_reader.outbox.compare import Compared
    from outhaul.cdc_reader.outbox.snapshot import Line
    from outhaul.cdc_reader.outbox.table_shape import Shape
    from outhaul.sink.settings import Outbox, Settings, Stream

log = structlog.get_logger("outhaul.copy")

# Timeout of queries over whole tables, in seconds: they may take long, so the limit for inserts does not apply.
ASK_TIMEOUT_S = 600.0
_SAMPLE = 100
_NAMED = 10
_LOCK: LiteralString = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
_HOLDER: LiteralString = """
    SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
    AND (classid::int8 << 32 | objid::int8) = hashtextextended(%s, 0)"""


@dataclass(slots=True)
class Tally:
    """The differences of both sides so far; `ids` has the first hundred ids of each kind."""

    rows: int = 0
    missing: int = 0
    extra: int = 0
    differing: int = 0
    repeated: int = 0
    dead_letters: int = 0
    ids: dict[str, list[int]] = field(default_factory=dict)
    not_compared: list[str] = field(default_factory=list)

    def add(self, found: Compared) -> None:
        """Add the differences of one range."""
        self.rows += found.rows
        self.dead_letters += found.aside
        for kind in ("missing", "extra", "differing", "repeated"):
            ids: Ints = getattr(found, kind)
            setattr(self, kind, getattr(self, kind) + len(ids))
            sample = self.ids.setdefault(kind, [])
            sample.extend(ids[: max(0, _SAMPLE - len(sample))].tolist())

    @property
    def agrees(self) -> bool:
        """Whether both sides have the same rows, once each."""
        return not (self.missing or self.extra or self.differing or self.repeated)


@dataclass(frozen=True, slots=True)
class Healed:
    """Result of a run: the differences, the number of stored rows and of dead letters among them, and its seconds."""

    tally: Tally
    stored: int
    dead_letters: int
    seconds: float


def verify(
    outbox: Outbox, line: Line, scope: Scope, on_range: Callable[[Compared, int], None], *, into: str = ""
) -> Tally:
    """Compare the table's share with a table of ClickHouse.

    Args:
        outbox: the table.
        line: which rows are the table's share.
        scope: what is compared.
        on_range: called with each range, and with the last id of all ranges.
        into: name of the table in ClickHouse; the outbox's table if it is not given.

    Raises:
        PipelineError: a server refuses or does not answer.
    """
    tally = Tally()
    with ClickHouse.of(outbox.settings, timeout_s=ASK_TIMEOUT_S) as clickhouse:
        comparison = Comparison(line, _shape(outbox, outbox.settings.undivided), clickhouse, outbox, scope, into)
        tally.not_compared = comparison.not_compared
        intervals = comparison.intervals(scope)
        for found in comparison.ranges(intervals):
            tally.add(found)
            on_range(found, intervals[-1][1])
    return tally


def heal(
    outbox: Outbox,
    stream: Stream,
    line: Line,
    scope: Scope,
    on_range: Callable[[Compared, int], None] = lambda _found, _last: None,
    *,
    give_up_s: float,
    threads: int = 2,
    into: str = "",
) -> Healed:
    """Store the rows of the table's share that a table of ClickHouse lacks.

    Args:
        outbox: the table.
        stream: the stream whose rows are copied.
        line: which rows are the table's share.
        scope: what is compared.
        on_range: called with each range, and with the last id of all ranges, before its rows are stored.
        give_up_s: seconds without a stored batch after which the run ends with an error.
        threads: number of threads that read from Postgres.
        into: name of the table in ClickHouse; the outbox's table if it is not given.

    Raises:
        FatalError: another copy runs, or an operator is needed.
        TransientError: nothing is stored for `give_up_s`.
    """
    started = time.monotonic()
    while True:
        try:
            healed = _heal(outbox, stream, line, scope, on_range, give_up_s, threads, into or outbox.clickhouse_table)
        except EpochOverError as error:
            # What is stored stays, so this copies what is still missing, in a new epoch.
            log.warning("copy_begins_again", source=outbox.settings.source, error=error)
            continue
        return replace(healed, seconds=time.monotonic() - started)


def _heal(
    outbox: Outbox,
    stream: Stream,
    line: Line,
    scope: Scope,
    on_range: Callable[[Compared, int], None],
    give_up_s: float,
    threads: int,
    table: str,
) -> Healed:
    started, tally = time.monotonic(), Tally()
    with ExitStack() as stack:
        clickhouse = stack.enter_context(ClickHouse.of(outbox.settings, timeout_s=ASK_TIMEOUT_S))
        delivery = stack.enter_context(_own_lane(outbox, stream, line, clickhouse, table, give_up_s))
        shape = _shape(outbox, stream)
        comparison = Comparison(line, shape, clickhouse, outbox, scope, table)
        tally.not_compared = comparison.not_compared
        intervals = comparison.intervals(scope)

        def wanted() -> Iterator[Wanted]:
            for found in comparison.ranges(intervals):
                tally.add(found)
                on_range(found, intervals[-1][1])
                _check_unambiguous(outbox, found)
                yield from _reads(found, outbox.settings.batch_max_rows, whole=scope.is_whole)

        def read(load: Wanted) -> Iterator[Assembled]:
            with line.connect() as conn:
                yield from batches(conn, shape, load, line.copied_lsn, outbox, table)

        for assembled in in_parallel(wanted(), read, threads):
            delivery.send(assembled)
        delivery.drain()
    seconds = time.monotonic() - started
    log.info(
        "copied", source=outbox.settings.source, rows=tally.rows, missing=tally.missing, stored=delivery.stored_rows
    )
    return Healed(tally, delivery.stored_rows, delivery.dead_letters, seconds)


def heal_all(
    stream: Stream,
    line: Line,
    on_range: Callable[[Compared, int], None] = lambda _found, _last: None,
    *,
    give_up_s: float,
    threads: int = 2,
) -> list[Healed]:
    """Store the rows that ClickHouse lacks of each outbox, one after the other; the arguments are those of `heal`.

    Raises:
        PipelineError: as `heal`.
    """
    return [
        heal(outbox, stream, line, Scope(), on_range, give_up_s=give_up_s, threads=threads)
        for outbox in stream.settings.outboxes()
    ]


def _check_unambiguous(outbox: Outbox, found: Compared) -> None:
    if len(found.ambiguous):
        some = ", ".join(map(str, found.ambiguous[:_NAMED].tolist()))
        raise FatalError(
            f"ClickHouse lacks rows of {outbox.table} whose ids other rows have, too ({some}): the id is the position "
            "of a copied row, so they cannot be copied",
            todo="Find the rows that ClickHouse lacks, by id and event_date_time; insert these, and no others, again "
            f"with other ids. Then delete the old ones, and CREATE UNIQUE INDEX ON {outbox.sql_table} (id)",
        )


def _reads(found: Compared, max_rows: int, *, whole: bool) -> Iterator[Wanted]:
    """Divide the missing ids into reads; a range without any stored row is read without a list of ids."""
    ids = found.missing
    whole &= len(ids) == found.rows
    for start in range(0, len(ids), max_rows):
        yield Wanted(ids[start : start + max_rows], whole=whole)


def _shape(outbox: Outbox, stream: Stream) -> Shape:
    with connect_primary(outbox.settings) as conn:
        return describe(conn, outbox, stream)


@contextmanager
def _own_lane(
    outbox: Outbox, stream: Stream, line: Line, clickhouse: ClickHouse, table: str, give_up_s: float
) -> Iterator[Delivery]:
    """Take the lane for copies: get the lock, raise the epoch, wait until older inserts have ended, complete the views.

    A copy that ends well raises the epoch once more, under the name `done`.
    """
    settings = outbox.settings
    name = f"outhaul copy {settings.source}"
    with (
        connect_primary(settings) as conn,
        Payloads.of(settings) as payloads,
        ClickHouse.of(settings, timeout_s=settings.insert_timeout_s) as delivering,
    ):
        # The lock belongs to the connection and ends with it.
        if not conn.fetch_value(_LOCK, [name]):
            holder = conn.fetch_value(_HOLDER, [name])
            who = f" (process {holder} of Postgres)" if holder else ""
            raise FatalError(
                f"another copy from the outbox of source {settings.source!r} is running{who}",
                todo="Wait until it ends, or end it; started again, it copies only what is still missing",
            )
        owner = secrets.token_hex(8)
        newest = newest_epoch(clickhouse, settings, COPY)
        streamed = newest_epoch(clickhouse, settings, stream.lane)
        epoch = 1 + (newest.epoch if newest else 0)
        history = streamed.history if streamed else History("", 0)
        raise_epoch(clickhouse, stream, history, line.lsn, epoch, owner, lane=COPY)
        wait_for_older_inserts(clickhouse, settings, COPY, time.sleep)
        with as_owner(clickhouse, settings, COPY, epoch, owner):
            for one in {table, *(each.clickhouse_table for each in settings.outboxes())}:
                feed = ViewFeed(clickhouse, settings.outbox_into(one) or outbox, one, COPY, owner)
                _complete_views(feed, clickhouse, settings, epoch)
        yield Delivery(outbox, make_app(settings), payloads, delivering, epoch, owner, give_up_s=give_up_s)
        raise_epoch(clickhouse, stream, history, line.lsn, epoch + 1, COPY_DONE, lane=COPY)


def _complete_views(feed: ViewFeed, clickhouse: ClickHouse, settings: Settings, epoch: int) -> None:
    """Send to the views what earlier copies stored, if they did not end well."""
    epochs = find_servers(clickhouse, settings).everywhere(settings.epochs_table)
    found = clickhouse.rows(
        query("unfinished_copies", epochs=epochs),
        parameters={"source": fence(settings.source, COPY), "epoch": epoch},
        settings=IN_SEQUENCE,
    )
    lines = [int(copied_lsn(Lsn(lsn))) for (lsn,) in found]
    if not lines or not feed.views():
        return
    if unknown := feed.push_stored("cdc_batch != 0 AND has({lines:Array(UInt64)}, cdc_lsn)", {"lines": lines}):
        log.warning(
            "views_not_completed",
            source=settings.source,
            rows=unknown,
            reason="too many inserts followed a copy that was broken off: a view may lack some of its rows",
            todo="Compare the views with `outhaul verify --views`",
        )
