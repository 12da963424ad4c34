"""A stored batch, and a view that refuses a row of it -> the row is noted, and the view receives all other rows.

Edge: ClickHouse. A view that refuses one row raises, whatever else the batch has. The batch is sent to the other views,
and it is noted that this view lacks it: from then on nobody sends the batch again. Then the rows that the view refuses
are found by running its query over parts of the batch. The others are inserted into its target, and the refused ones
when the view takes them.

Source: docs/adr/0017-a-view-receives-each-event-once.md
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from random import SystemRandom
from typing import TYPE_CHECKING, Any

import structlog

from outhaul.sink.clickhouse_errors import is_thrown
from outhaul.sink.errors import FatalError, PipelineError, TransientError
from outhaul.sink.fence import guard, wait_for_older_inserts
from outhaul.sink.lanes import fence, mark
from outhaul.sink.push_again import FORGOTTEN, NOTED, batch_settings, is_everywhere, push_again
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

_random = SystemRandom().random

# Rows that a view may refuse of one batch and receive the others: each costs some queries.
_MAX_REFUSED = 100
# The same while the view has taken no row of the batch: then it is broken, and every batch costs these queries.
_MAX_ALL_REFUSED = 8
# Gaps of a view that are tried in one round after it has refused others.
_MAX_REFUSALS = 3
# Gaps that are looked at in one round.
_MAX_GAPS = 1000
_POSITION = "(cdc_lsn, cdc_ordinal)"
# How often a batch is sent while the errors of views are ignored.
_ATTEMPTS = 2
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
        sent = 0
        for number, first, last, rows in found:
            batch = StoredBatch(int(number), int(first), int(last))
            if batch.number and self.push(batch):
                sent += int(rows)
        return sum(int(rows) for *_, rows in found) - sent

    def push(self, batch: StoredBatch) -> bool:
        """Send a batch to the views that lack it; note a view that refuses rows of it.

        Returns:
            False if the batch was not sent, since ClickHouse may have forgotten its token.

        Raises:
            TransientError: ClickHouse does not answer, or a view cannot take anything now; call this again.
            FatalError: a newer owner has taken over the lane.
        """
        try:
            try:
                self._push(batch)
            except TransientError:
                raise
            except PipelineError as error:
                if is_thrown(error):
                    raise
                self._note_refused(batch, error)
        except FatalError as error:
            if is_thrown(error, FORGOTTEN):
                return False
            # Another task of the batch may note it at any moment.
            if not is_thrown(error, NOTED):
                raise
        return True

    def fill(self) -> int:
        """Send to each view what it lacks, if it takes it now; return the number of gaps that are filled or divided.

        Raises:
            PipelineError: ClickHouse refuses or does not answer.
        """
        found = gaps(self._clickhouse, self._outbox)
        if not found:
            return 0
        if any(gap.position == _WHOLE for gap in found):
            # An insert of the batch that began before the gap was noted could still reach the view.
            wait_for_older_inserts(self._clickhouse, self._outbox.settings, None, time.sleep)
        views = {str(view.name): view for view in self.views()}
        filled, refusals = 0, Counter[str]()
        # In another order each time, so that gaps that a view never takes do not keep it from the others.
        for gap in sorted(found, key=lambda _: _random()):
            view = views.get(gap.view)
            is_alone = sum(one.batch == gap.batch and one.position == _WHOLE for one in found) == 1
            # ClickHouse's error did not name the view of a gap without a name.
            if not gap.view or refusals[gap.view] >= _MAX_REFUSALS:
                continue
            if view is None or (view.depth == 1 and self._fill(view, gap, is_alone=is_alone)):
                self._note(gap, filled=True)
                filled += 1
            else:
                refusals[gap.view] += 1
        return filled

    def _push(self, batch: StoredBatch, *, ignore_errors: bool = False, though_noted: bool = False) -> None:
        settings = batch_settings(
            self._source, batch.number, mark(self._fence), self._outbox.settings.insert_timeout_s
        ) | {"materialized_views_ignore_errors": int(ignore_errors)}
        bound = self._bound(batch) | {"fence": self._fence, "owner": self._owner}
        push_again(
            self._clickhouse,
            self._table,
            self._outbox.view_gaps_table,
            self._guard,
            batch.number,
            bound,
            settings,
            servers=self.servers(),
            though_noted=though_noted,
        )

    def _note_refused(self, batch: StoredBatch, error: PipelineError) -> None:
        """Send a batch to all views but those that refuse rows of it, and note that these lack the batch."""
        views = self.views()
        # The errors of all views are ignored: one that was short of memory the first time has a second.
        for _ in range(_ATTEMPTS):
            self._push(batch, ignore_errors=True)
        rows = len(self._positions(batch))
        refusing = [
            Gap(str(view.name), batch, _WHOLE, rows, why.message)
            for view in views
            if view.depth == 1 and (why := self._error(view, batch, "1")) is not None
        ]
        if not refusing:
            refusing = self._unexplained(batch, views, rows)
        if refusing:
            self._note(*refusing)
            metrics.view_refused(rows * len(refusing))
            names = [gap.view for gap in refusing]
            log.error("view_refuses", table=self._table, views=names, rows=rows, batch=batch.number, error=error)

    def _unexplained(self, batch: StoredBatch, views: Sequence[View], rows: int) -> list[Gap]:
        """Return the gap of a view that is not on the table itself; none if all views take the batch by now."""
        try:
            self._push(batch)
        except TransientError:
            raise
        except PipelineError as error:
            if is_thrown(error):
                raise
            return [Gap(_refuser(views, error.message), batch, _WHOLE, rows, error.message)]
        log.info("view_takes_batch_again", table=self._table, batch=batch.number)
        return []

    def _refused(self, view: View, batch: StoredBatch) -> list[Gap] | None:
        """Return the rows of a batch that a view's query refuses; None if they are too many."""
        positions = self._positions(batch)
        refused: list[Gap] = []
        taken = 0
        ranges = [(0, len(positions))] if positions else []
        while ranges:
            start, end = ranges.pop()
            within = f"{_POSITION} >= {positions[start]} AND {_POSITION} <= {positions[end - 1]}"
            error = self._error(view, batch, within)
            if error is None:
                taken += end - start
                continue
            if end - start > 1:
                middle = (start + end) // 2
                ranges += [(middle, end), (start, middle)]
                continue
            refused.append(Gap(str(view.name), batch, positions[start], 1, error.message))
            if len(refused) > (_MAX_REFUSED if taken else min(_MAX_ALL_REFUSED, len(positions) - 1)):
                return None
        return refused

    def _error(self, view: View, batch: StoredBatch, within: str) -> PipelineError | None:
        """Return the error of a view's query over some rows of a batch, if it has one."""
        try:
            self._clickhouse.command(
                query("view_rows", as_select=view.as_select), settings=self._only(view, batch, within)
            )
        except TransientError:
            raise
        except PipelineError as error:
            return error
        return None

    def _fill(self, view: View, gap: Gap, *, is_alone: bool) -> bool:
        """Send to a view what it lacks; tell whether the view took it.

        A whole batch of which the view refuses nothing any more is sent under its token: a statement that began before
        the batch was noted may have reached the view since, and the token knows. Otherwise the refused rows are noted
        one by one, and the view's query puts the others into the target.

        Args:
            view: the view.
            gap: what it lacks.
            is_alone: whether no other view lacks the whole batch.
        """
        if view.target is None or not is_everywhere(
            self._clickhouse, self._table, self.servers(), gap.batch.number, self._bound(gap.batch)
        ):
            return False
        within = f"{_POSITION} = {gap.position}"
        if gap.position == _WHOLE:
            noted = self._rows_refused(gap.batch)
            # Once rows are noted, the others may be in the target under a token of their own.
            refused = noted.get(gap.view)
            if refused is None:
                found = self._refused(view, gap.batch)
                if found is None:
                    return False
                if (
                    not found
                    and not noted
                    and (sent := self._send_noted(gap.batch, ignore_errors=not is_alone)) is not None
                ):
                    return sent
                for one in found:
                    self._note(one)
                refused = [one.position for one in found]
            within = f"{_POSITION} NOT IN ({', '.join(map(str, refused))})" if refused else "1"
        token = f"outhaul/gap/{self._source}/{view.name}/{gap.batch.number:016x}/{gap.position}"
        timeout_s = self._outbox.settings.insert_timeout_s
        settings = batch_settings(self._source, gap.batch.number, mark(self._fence), timeout_s)
        try:
            names = self._clickhouse.rows(query("view_columns", as_select=view.as_select))
            columns = ", ".join(clickhouse_identifier(str(row[0])) for row in names)
            fill = query(
                "fill_view", target=view.target.quoted, columns=columns, as_select=view.as_select, fence=self._guard
            )
            self._clickhouse.command(
                fill,
                parameters={"fence": self._fence, "owner": self._owner},
                settings=settings | {"insert_deduplication_token": token} | self._only(view, gap.batch, within),
            )
        except TransientError:
            raise
        except PipelineError as error:
            if is_thrown(error):
                raise
            log.info("view_still_refuses", view=gap.view, rows=gap.rows, error=error)
            return False
        log.info("view_gap_filled", view=gap.view, rows=gap.rows, batch=gap.batch.number)
        return True

    def _send_noted(self, batch: StoredBatch, *, ignore_errors: bool) -> bool | None:
        """Send a batch that is noted; tell whether all views took it, None if its token may be forgotten."""
        try:
            for _ in range(_ATTEMPTS if ignore_errors else 1):
                self._push(batch, ignore_errors=ignore_errors, though_noted=True)
        except TransientError:
            raise
        except PipelineError as error:
            if is_thrown(error, FORGOTTEN):
                return None
            if is_thrown(error):
                raise
            return False
        return True

    def _rows_refused(self, batch: StoredBatch) -> dict[str, list[Position]]:
        """Return the events of a batch that views have refused one by one, filled since or not."""
        found = self._clickhouse.rows(
            query("rows_refused", view_gaps=self._outbox.view_gaps_table),
            parameters={"source": self._source, "batch": batch.number},
            settings=IN_SEQUENCE,
        )
        refused: dict[str, list[Position]] = {}
        for view, lsn, ordinal in found:
            refused.setdefault(view, []).append((int(lsn), int(ordinal)))
        return refused

    def _bound(self, batch: StoredBatch) -> dict[str, Any]:
        return {"source": self._source, "first_lsn": batch.first_lsn, "last_lsn": batch.last_lsn}

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
            parameters=self._bound(batch) | {"batch": batch.number},
        )
        return [(int(lsn), int(ordinal)) for lsn, ordinal in found]

    def _note(self, *lacking: Gap, filled: bool = False) -> None:
        """Note the same events for one view or several."""
        gap = lacking[0]
        self._clickhouse.command(
            query("add_view_gap", view_gaps=self._outbox.view_gaps_table),
            parameters=self._bound(gap.batch)
            | {
                "views": [one.view for one in lacking],
                "reasons": [one.reason for one in lacking],
                "batch": gap.batch.number,
                "lsn": gap.position[0],
                "ordinal": gap.position[1],
                "rows": gap.rows,
                "filled": filled,
            },
            settings={"async_insert": 0},
        )


def gaps(clickhouse: ClickHouse, outbox: Outbox) -> list[Gap]:
    """Return what views lack of the events of an outbox; a thousand gaps at most.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    found = clickhouse.rows(
        query("view_gaps", view_gaps=outbox.view_gaps_table),
        parameters={"source": outbox.settings.source, "limit": _MAX_GAPS},
        settings=IN_SEQUENCE,
    )
    return [
        Gap(view, StoredBatch(int(batch), int(first), int(last)), (int(lsn), int(ordinal)), int(rows), reason)
        for view, batch, lsn, ordinal, first, last, rows, reason in found
    ]


def _refuser(views: Sequence[View], message: str) -> str:
    """Return which view an error of a push is about: one whose target refuses rows, or a view on another's target.

    Empty if that is not certain: a view that has the batch already must not be filled with it.
    """
    read = {view.source for view in views}
    named = [view for view in views if str(view.name) in message and (view.depth > 1 or view.target not in read)]
    return str(max(named, key=lambda view: view.depth).name) if named else ""


def count_gaps(found: Iterable[Gap]) -> dict[str, int]:
    """Return how many events each view lacks."""
    lacking: dict[str, int] = {}
    for gap in found:
        lacking[gap.view] = lacking.get(gap.view, 0) + gap.rows
    return lacking
