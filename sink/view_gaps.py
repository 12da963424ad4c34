"""A stored batch, and a view that refuses a row of it -> the row is noted, and the view receives all other rows.

Edge: ClickHouse. A view that refuses one row raises, whatever else the batch has. So the rows that it refuses are found
by running its query over parts of the batch, and the batch is sent without them. A table has what each view lacks,
until the view takes it.

Source: docs/adr/0017-a-view-receives-each-event-once.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from outhaul.sink.clickhouse_errors import is_thrown
from outhaul.sink.errors import PipelineError, TransientError
from outhaul.sink.fence import guard
from outhaul.sink.lanes import fence, mark
from outhaul.sink.push_again import batch_settings, is_everywhere, is_forgotten, push_again
from outhaul.sink.quoting import clickhouse_identifier, clickhouse_literal
from outhaul.sink.replicas import IN_SEQUENCE, find_servers
from outhaul.sink.sql import query
from outhaul.sink.telemetry import metrics
from outhaul.sink.views import views_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.replicas import Servers
    from outhaul.sink.settings import Outbox
    from outhaul.sink.views import View

log = structlog.get_logger("outhaul.sink")

# Rows that a view may refuse of one batch before the batch is noted as a whole: each costs some queries.
_MAX_REFUSED = 100
# The same while the view has taken no row of the batch: then it is broken, and every batch costs these queries.
_MAX_ALL_REFUSED = 8
# Gaps that are tried in one round.
_MAX_GAPS = 1000
# Positions of rows that are copied from the outbox: no WAL record begins there.
_ALIGNMENT, _COPIED = 8, 7
# In place of a position: the gap is a whole batch.
_WHOLE = (0, 0)

Position = tuple[int, int]


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch with stored rows: its number, and the least and the greatest LSN of its rows."""

    number: int
    first_lsn: int
    last_lsn: int


@dataclass(frozen=True, slots=True)
class Gap:
    """What a view lacks: an event, or a whole batch (`position` is then (0, 0)); `rows` is the number of events."""

    view: str
    batch: StoredBatch
    position: Position
    rows: int
    reason: str
    is_open: bool = True


class ViewFeed:
    """Sends stored batches of one table to the views on it, as the owner of a lane."""

    def __init__(self, clickhouse: ClickHouse, outbox: Outbox, table: str, lane: str, owner: str) -> None:
        """Ask nothing yet.

        Args:
            clickhouse: the server.
            outbox: the outbox of the rows; its table of gaps is used.
            table: the table of the batches, which a copy may have chosen.
            lane: the lane of the owner.
            owner: owner of the lane's newest epoch.
        """
        self._clickhouse = clickhouse
        self._outbox = outbox
        self._table = table
        self._fence = fence(outbox.settings.source, lane)
        self._owner = owner
        self._guard = guard(outbox.settings)
        self._found: Servers | None = None

    def servers(self) -> Servers:
        """Return the servers that have the table.

        Raises:
            PipelineError: ClickHouse refuses, or one of them does not answer.
        """
        if self._found is None:
            self._found = find_servers(self._clickhouse, self._outbox.settings, self._table)
        return self._found

    @property
    def _source(self) -> str:
        return self._outbox.settings.source

    def views(self) -> list[View]:
        """Return the views that inserts into the table are pushed to, those on their targets too.

        Raises:
            PipelineError: ClickHouse refuses or does not answer.
        """
        return [view for view in views_of(self._clickhouse, self._table) if not view.is_refreshable]

    def push_stored(self, which: str, values: Mapping[str, Any]) -> int:
        """Send all batches again that have stored rows; return how many rows were not sent.

        Rows that an older release has stored have no batch. ClickHouse may have forgotten the token of a batch that was
        stored long ago, and would store it twice.

        Args:
            which: condition on the rows.
            values: values of its parameters.

        Raises:
            PipelineError: ClickHouse refuses or does not answer.
        """
        found = self._clickhouse.rows(
            query("batches_stored", table=self.servers().everywhere(self._table), which=which),
            parameters={"source": self._source, **values},
            settings=IN_SEQUENCE,
        )
        fresh = self._not_forgotten(found)
        whole = [gap for gap in gaps(self._clickhouse, self._outbox, only_open=False) if gap.position == _WHOLE]
        filled = {gap.batch.number for gap in whole if not gap.is_open}
        for number, first, last, *_ in fresh:
            batch = StoredBatch(int(number), int(first), int(last))
            # A view that was filled has the rows under another token, and all others had the batch before.
            if batch.number and batch.number not in filled and not self.push(batch):
                self.close([gap for gap in whole if gap.batch.number == batch.number])
        sent = sum(int(rows) for number, _, _, rows, _ in fresh if number)
        return sum(int(rows) for _, _, _, rows, _ in found) - sent

    def _not_forgotten(self, found: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """Return the batches of which ClickHouse has the tokens for sure."""
        if not found or not is_forgotten(self._clickhouse, self._table, min(int(since_us) for *_, since_us in found)):
            return found
        return [row for row in found if not is_forgotten(self._clickhouse, self._table, int(row[-1]))]

    def close(self, found: Iterable[Gap]) -> None:
        """Note that the views have what they lacked.

        Raises:
            PipelineError: ClickHouse refuses or does not answer.
        """
        for gap in found:
            self._note(gap, filled=True)

    def whole_gaps(self, batch: StoredBatch) -> list[Gap]:
        """Return the gaps that are this whole batch.

        Raises:
            PipelineError: ClickHouse refuses or does not answer.
        """
        found = gaps(self._clickhouse, self._outbox, from_lsn=batch.last_lsn)
        return [gap for gap in found if gap.batch.number == batch.number and gap.position == _WHOLE]

    def push(self, batch: StoredBatch) -> int:
        """Send a batch to the views that lack it; note what a view refuses. Return the number of noted events.

        Raises:
            TransientError: ClickHouse does not answer, or a view cannot take anything now; call this again.
            FatalError: a newer owner has taken over the lane.
        """
        try:
            self._push(batch)
        except TransientError:
            raise
        except PipelineError as error:
            if is_thrown(error):
                raise
            return self._push_without_refused(batch, error)
        return 0

    def fill(self, below_lsn: int, *, copies: bool) -> int:
        """Send to each view what it lacks, if it takes it now; return the number of filled gaps.

        Args:
            below_lsn: whole batches are filled below this LSN alone: no reader sends those again.
            copies: whether this holds of all copies from the outbox, too.

        Raises:
            PipelineError: ClickHouse refuses or does not answer.
        """
        found = gaps(self._clickhouse, self._outbox)
        if not found:
            return 0
        views = {str(view.name): view for view in self.views()}
        filled = 0
        for gap in found:
            is_copy = gap.batch.last_lsn % _ALIGNMENT == _COPIED
            if gap.position == _WHOLE and not (copies if is_copy else gap.batch.last_lsn < below_lsn):
                continue
            view = views.get(gap.view)
            if view is None or (view.depth == 1 and self._fill(view, gap)):
                self._note(gap, filled=True)
                filled += 1
        return filled

    def _push(self, batch: StoredBatch, *, without: str = "", ignore_errors: bool = False) -> None:
        settings = batch_settings(
            self._source, batch.number, mark(self._fence), self._outbox.settings.insert_timeout_s
        ) | {"materialized_views_ignore_errors": int(ignore_errors)}
        bound = {
            "source": self._source,
            "fence": self._fence,
            "owner": self._owner,
            "first_lsn": batch.first_lsn,
            "last_lsn": batch.last_lsn,
        }
        push_again(
            self._clickhouse,
            self._table,
            self._guard,
            batch.number,
            bound,
            settings,
            without=without,
            servers=self.servers(),
        )

    def _push_without_refused(self, batch: StoredBatch, error: PipelineError) -> int:
        self._push(batch, ignore_errors=True)
        found = [gap for view in self.views() if view.depth == 1 for gap in self._refused(view, batch)]
        if not found:
            found = self._unexplained(batch, error)
        # A view takes the first push that has none of the rows that it refuses, so those with few of them come first.
        by_view: dict[str, list[Gap]] = {}
        for gap in found:
            by_view.setdefault(gap.view, []).append(gap)
        for of_view in sorted(by_view.values(), key=len):
            positions = [gap.position for gap in of_view]
            if positions != [_WHOLE]:
                self._push(batch, without=f"AND {_not_in(positions)}", ignore_errors=True)
            for gap in of_view:
                self._note(gap)
        noted = sum(gap.rows for gap in found)
        if noted:
            metrics.view_refused(noted)
            log.error("view_refuses", table=self._table, views=sorted(by_view), rows=noted, error=error)
        return noted

    def _unexplained(self, batch: StoredBatch, error: PipelineError) -> list[Gap]:
        """Return the gap of a view that is not on the table itself, or of one that takes the batch by now."""
        try:
            self._push(batch)
        except TransientError:
            raise
        except PipelineError as again:
            if is_thrown(again):
                raise
            named = [str(view.name) for view in self.views() if str(view.name) in again.message]
            return [Gap(named[0] if named else "", batch, _WHOLE, len(self._positions(batch)), again.message)]
        log.info("view_takes_batch_again", table=self._table, batch=batch.number, error=error)
        return []

    def _refused(self, view: View, batch: StoredBatch) -> list[Gap]:
        """Return the rows of a batch that a view's query refuses."""
        positions = self._positions(batch)
        refused: list[Gap] = []
        taken = 0
        ranges = [(0, len(positions))] if positions else []
        while ranges:
            start, end = ranges.pop()
            error = self._error(view, batch, positions[start], positions[end - 1])
            if error is None:
                taken += end - start
                continue
            if end - start > 1:
                middle = (start + end) // 2
                ranges += [(middle, end), (start, middle)]
                continue
            refused.append(Gap(str(view.name), batch, positions[start], 1, error.message))
            if len(refused) > (_MAX_REFUSED if taken else min(_MAX_ALL_REFUSED, len(positions) - 1)):
                return [Gap(str(view.name), batch, _WHOLE, len(positions), error.message)]
        return refused

    def _error(self, view: View, batch: StoredBatch, first: Position, last: Position) -> PipelineError | None:
        """Return the error of a view's query over a range of rows, if it has one."""
        within = f"(cdc_lsn, cdc_ordinal) >= {first} AND (cdc_lsn, cdc_ordinal) <= {last}"
        try:
            self._clickhouse.command(
                query("view_rows", as_select=view.as_select), settings=self._only(view, batch, within)
            )
        except TransientError:
            raise
        except PipelineError as error:
            return error
        return None

    def _fill(self, view: View, gap: Gap) -> bool:
        """Insert into a view's target what its query makes of a gap's rows; tell whether the view took it."""
        batch = {"source": self._source, "first_lsn": gap.batch.first_lsn, "last_lsn": gap.batch.last_lsn}
        if view.target is None or not is_everywhere(
            self._clickhouse, self._table, self.servers(), gap.batch.number, batch
        ):
            return False
        within = "1" if gap.position == _WHOLE else f"(cdc_lsn, cdc_ordinal) = {gap.position}"
        token = f"outhaul/gap/{self._source}/{view.name}/{gap.batch.number:016x}/{gap.position}"
        settings = batch_settings(self._source, gap.batch.number, "", self._outbox.settings.insert_timeout_s)
        try:
            names = self._clickhouse.rows(query("view_columns", as_select=view.as_select))
            columns = ", ".join(clickhouse_identifier(str(row[0])) for row in names)
            self._clickhouse.command(
                query("fill_view", target=view.target.quoted, columns=columns, as_select=view.as_select),
                settings=settings | {"insert_deduplication_token": token} | self._only(view, gap.batch, within),
            )
        except TransientError:
            raise
        except PipelineError as error:
            log.info("view_still_refuses", view=gap.view, rows=gap.rows, error=error)
            return False
        log.info("view_gap_filled", view=gap.view, rows=gap.rows, batch=gap.batch.number)
        return True

    def _only(self, view: View, batch: StoredBatch, within: str) -> dict[str, Any]:
        """Return the setting with which a view's query reads some rows of a batch alone."""
        condition = (
            f"cdc_source = {clickhouse_literal(self._source)} AND cdc_batch = {batch.number} "
            f"AND cdc_lsn BETWEEN {batch.first_lsn} AND {batch.last_lsn} AND {within}"
        )
        return {
            "additional_table_filters": f"{{{clickhouse_literal(str(view.source))}: {clickhouse_literal(condition)}}}"
        }

    def _positions(self, batch: StoredBatch) -> Sequence[Position]:
        found = self._clickhouse.rows(
            query("positions_of_batch", table=self._table),
            parameters={
                "source": self._source,
                "batch": batch.number,
                "first_lsn": batch.first_lsn,
                "last_lsn": batch.last_lsn,
            },
        )
        return [(int(lsn), int(ordinal)) for lsn, ordinal in found]

    def _note(self, gap: Gap, *, filled: bool = False) -> None:
        self._clickhouse.command(
            query("add_view_gap", view_gaps=self._outbox.view_gaps_table),
            parameters={
                "source": self._source,
                "view": gap.view,
                "batch": gap.batch.number,
                "lsn": gap.position[0],
                "ordinal": gap.position[1],
                "first_lsn": gap.batch.first_lsn,
                "last_lsn": gap.batch.last_lsn,
                "rows": gap.rows,
                "reason": gap.reason,
                "filled": filled,
            },
            settings={"async_insert": 0},
        )


def gaps(clickhouse: ClickHouse, outbox: Outbox, *, from_lsn: int = 0, only_open: bool = True) -> list[Gap]:
    """Return what views lack of the events of an outbox; a thousand gaps at most.

    Args:
        clickhouse: the server.
        outbox: the outbox.
        from_lsn: leave out batches that end before this LSN.
        only_open: leave out gaps that are filled.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    found = clickhouse.rows(
        query("view_gaps", view_gaps=outbox.view_gaps_table),
        parameters={
            "source": outbox.settings.source,
            "from_lsn": from_lsn,
            "only_open": only_open,
            "limit": _MAX_GAPS,
        },
    )
    return [
        Gap(
            view=view,
            batch=StoredBatch(int(batch), int(first), int(last)),
            position=(int(lsn), int(ordinal)),
            rows=int(rows),
            reason=reason,
            is_open=bool(is_open),
        )
        for view, batch, lsn, ordinal, first, last, rows, reason, is_open in found
    ]


def count_gaps(found: Iterable[Gap]) -> dict[str, int]:
    """Return how many events each view lacks."""
    lacking: dict[str, int] = {}
    for gap in found:
        lacking[gap.view] = lacking.get(gap.view, 0) + gap.rows
    return lacking


def _not_in(positions: Iterable[Position]) -> str:
    return f"(cdc_lsn, cdc_ordinal) NOT IN ({', '.join(map(str, positions))})"
