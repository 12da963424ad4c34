"""ClickHouse, user, tables -> for each trial what was found, or an error that says why outhaul cannot rely on it.

Edge: ClickHouse. Each trial uses tables that nobody else uses, with a view and a target of its own
(sql/clickhouse/0010 to 0012).

1. *tokens*: one token, sent three times, is one row in the table and one in the view, although the view fails at first.
2. *one server*: each connection finds a row that one of them has written.
3. *running queries*: each connection lists a query that runs on one of them, by its mark.
4. *row policies*: none hides rows of outhaul's tables from this user.
5. *same tables*: no event table with rows of batches was restored or exchanged; it would have none of their tokens.
6. *times*: the column `event_date_time` can store the first and the last time that a reader sends.

Source: https://clickhouse.com/docs/operations/settings/settings#insert_deduplication_token
"""

from __future__ import annotations

import math
import re
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from outhaul.sink import schema
from outhaul.sink.batch import encode
from outhaul.sink.clickhouse_errors import ACCESS_DENIED, THROW_IF
from outhaul.sink.errors import Exit, FatalError, PipelineError, TransientError
from outhaul.sink.push_again import batch_settings
from outhaul.sink.quoting import clickhouse_literal
from outhaul.sink.sql import query

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.settings import Settings

ENDS_US = (-2_208_988_800_000_000, 10_413_791_999_999_999)
"""The first and the last time that a reader sends, in microseconds since 1970; others become dead letters."""

TIMEOUT_S = 10
"""How long a statement of a trial may take, in seconds."""
_ROWS = len(ENDS_US)
# A load balancer sends each new connection to another server, or each request: so there are several of both.
CONNECTIONS, _REQUESTS = 3, 2
# How long the query runs that is looked for; longer each time, if a busy machine was too slow.
_SLEEPS_S = (0.05, 0.5, 2.0)
# If a request takes this long, for example because a balancer first tries a dead server, these seconds, too. ClickHouse
# sleeps three seconds at most at a time.
_SLOW_S, _LONG_S = 0.2, 9.0
_AT_A_TIME_S = 2.9
# How long a replica may take to receive a row, and how often it is asked.
_LAG_S, _POLL_S = 5.0, 0.05
# An insert looks for stored rows within a second of their times, so a column of whole seconds is precise enough.
_PRECISION_US = 1_000_000
_FILTER = re.compile(r"Row level filter column: (.*?)(?: \(removed\))?$")


@dataclass(frozen=True)
class Trial:
    """One run of the trials."""

    clickhouse: ClickHouse
    settings: Settings
    tables: Mapping[str, schema.Table]
    connections: tuple[ClickHouse, ...]
    batch: int = field(default_factory=lambda: secrets.randbits(63))

    @property
    def run(self) -> str:
        """The name of the rows of this run."""
        return f"{self.batch:016x}"

    @property
    def mark(self) -> str:
        """The log_comment of this run's statements; no fence has such a mark."""
        return f"outhaul trial {self.run}"

    @property
    def is_replicated(self) -> bool:
        """Whether other servers have replicas of the table of the trials."""
        return self.tables[self.settings.trial_table].is_replicated

    @cached_property
    def unknown(self) -> dict[str, str]:
        """The event tables of one server that no reader and no worker has seen before, by what identifies them.

        Raises:
            PipelineError: ClickHouse refuses or does not answer.
        """
        names = [outbox.clickhouse_table for outbox in self.settings.outboxes()]
        alone = [name for name in names if not self.tables[name].is_replicated]
        asked = query("trial_identities", trial=self.settings.trial_table)
        rows = self.clickhouse.rows(asked, parameters={"tables": alone})
        return {str(identity): str(name) for name, identity, is_known in rows if not is_known}

    def error(self, message: str, todo: str) -> FatalError:
        """Return the error of a trial that has failed."""
        return FatalError(
            f"ClickHouse at {self.clickhouse.address}: {message}", todo=todo, exit_code=Exit.CLICKHOUSE_TABLE
        )


def tokens(trial: Trial) -> str:
    """Send one token three times: the view fails, all is sent again, and the table's rows are sent to the view again.

    Raises:
        FatalError: rows are there twice, or not at all.
        PipelineError: ClickHouse refuses or does not answer.
    """
    fails = {"materialized_views_ignore_errors": 1, "log_comment": f"{trial.mark}/fails"}
    try:
        _insert(trial, trial.run, ENDS_US, trial.batch, fails)
    except FatalError as error:
        # Then this server does not store the rows of the table without those of the view; the next insert does.
        if error.code != THROW_IF:
            raise
    _insert(trial, trial.run, ENDS_US, trial.batch)
    trial.clickhouse.command(
        query("trial_again", trial=trial.settings.trial_table),
        parameters={"run": trial.run},
        settings=_settings(trial, trial.batch),
    )
    stored, viewed = _found(trial, trial.clickhouse, trial.run, _ROWS)
    name, view = trial.settings.trial_table, trial.settings.trial_view
    if stored > _ROWS or viewed > _ROWS:
        where = f"the table {name!r}" if stored > _ROWS else f"the view {view!r}"
        raise trial.error(
            f"{_ROWS} rows were sent three times under one insert_deduplication_token, and {where} has "
            f"{max(stored, viewed)} of them: a batch that is sent again would be stored twice",
            "Remove insert_deduplicate, deduplicate_insert and the like from the user's profile, and compare the "
            f"settings of {name} and {trial.settings.trial_copies} with sql/clickhouse/0010_event_log_trial.sql",
        )
    if stored < _ROWS:
        raise trial.error(
            f"{_ROWS} rows were stored in {name!r}, and {stored} are found",
            "Let no row policy hide rows of outhaul's tables from this user, and let OUTHAUL_CLICKHOUSE_URL lead to "
            "one server, or to replicas of it",
        )
    if viewed < _ROWS:
        raise trial.error(
            f"the view {view!r} failed, and did not get its rows when they were sent again: it has {viewed} of {_ROWS}",
            "Compare the view with sql/clickhouse/0012_event_log_trial_view.sql; if it is the same, upgrade the server",
        )
    return "what is sent again is stored once"


def one_server(trial: Trial) -> str:
    """Write a row on one connection, and read it on the others.

    Raises:
        FatalError: a connection leads to a server that does not have the row.
        TransientError: a replica does not receive the row in time.
        PipelineError: ClickHouse refuses or does not answer.
    """
    run = f"{trial.run} on one server"
    _insert(trial, run, ENDS_US[:1], trial.batch + 1)
    for connection in trial.connections:
        if all(_found(trial, connection, run, 1)[0] for _ in range(_REQUESTS)):
            continue
        if trial.is_replicated:
            raise TransientError(f"a replica of ClickHouse has not received a row within {_LAG_S:g} s")
        raise trial.error(
            "a row that was written on one connection is not found on another, so several servers that are no replicas "
            "of each other answer under this address",
            "Let OUTHAUL_CLICKHOUSE_URL lead to one server, or create replicated tables with `outhaul setup --cluster`",
        )
    return f"the same for {len(trial.connections)} connections"


def running_queries(trial: Trial) -> str:
    """Run a marked query on one connection, and look for it on the others.

    Of replicas, each lists its own queries alone, and outhaul asks all of them. There a query looks for itself.

    Raises:
        FatalError: a connection does not list it.
        PipelineError: ClickHouse refuses or does not answer.
    """
    try:
        begun_at = time.monotonic()
        finds_itself = all(_finds_itself(trial, one) for one in trial.connections)
        is_slow = time.monotonic() - begun_at > _SLOW_S * CONNECTIONS * _REQUESTS
        sleeps_s = (*_SLEEPS_S, _LONG_S) if is_slow else _SLEEPS_S
        is_listed = finds_itself and (
            trial.is_replicated or any(_is_found_while_it_runs(trial, seconds) for seconds in sleeps_s)
        )
    except FatalError as error:
        if error.code != ACCESS_DENIED:
            raise
        return "this user may not list them"
    if not is_listed:
        raise trial.error(
            "a running query is not found in system.processes by its log_comment, so a reader could not wait for the "
            "inserts of an older one",
            "Let OUTHAUL_CLICKHOUSE_URL lead to one server, and not through a proxy that changes statements or divides "
            "requests between servers",
        )
    return "listed by their mark"


def row_policies(trial: Trial) -> str:
    """Look for row policies on outhaul's tables that may hide rows from this user.

    ClickHouse shows the filter of a policy in the plan of a query, but not for a table without rows. The list of
    policies needs a privilege of its own, so it is asked only then.

    Raises:
        FatalError: a policy may hide rows.
        PipelineError: ClickHouse refuses or does not answer.
    """
    names = [name for name, table in trial.tables.items() if table.base_engine.endswith("MergeTree")]
    plans = _plans(trial, names)
    may_ask, unknown = True, []
    for name in names:
        filters = _filters(trial, plans[name])
        if filters is None and may_ask:
            filters = _policies(trial, name)
            may_ask = filters is not None
        if filters is None:
            unknown.append(name)
        for shown in filters or ():
            raise trial.error(
                f"a row policy hides rows of {name!r} from this user: {shown}. Stored events would look missing, and "
                "would be stored again",
                "Exempt the user of OUTHAUL_CLICKHOUSE_URL from the policy: ALTER ROW POLICY ... TO ALL EXCEPT ...",
            )
    if unknown:
        return f"none; unknown for {len(unknown)} empty tables"
    return "none"


def same_tables(trial: Trial) -> str:
    """Look for event tables that have rows of batches, but none of their tokens, since they were replaced.

    A batch is sent to the views again under its token. A table that was restored from a backup, or exchanged for a
    copy, does not know the token, and would store the rows a second time. Replicated tables have tokens in Keeper.

    Raises:
        FatalError: a table was replaced.
        PipelineError: ClickHouse refuses or does not answer.
    """
    for name in trial.unknown.values():
        ((has_batches,),) = trial.clickhouse.rows(query("trial_batches", table=name))
        if has_batches:
            raise trial.error(
                f"table {name!r} was restored from a backup or exchanged for another one: it has stored batches, but "
                "does not remember their tokens, so a batch that is sent again would be stored twice",
                f"{schema.forget_batches(name)}  -- then these rows are never sent again; compare the views with "
                "`outhaul verify --views`",
            )
    return "as before"


def times(trial: Trial) -> str:
    """Let the server convert both ends of the range of times to the type of the column `event_date_time`.

    Raises:
        FatalError: the column stores another time.
        PipelineError: ClickHouse does not answer.
    """
    for outbox in trial.settings.outboxes():
        name = outbox.clickhouse_table
        for (kind,) in trial.clickhouse.rows(
            "SELECT type FROM system.columns WHERE database = currentDatabase() AND table = {table:String} "
            "AND name = 'event_date_time'",
            parameters={"table": name},
        ):
            if any(_is_changed(trial, str(kind), end_us) for end_us in ENDS_US):
                raise trial.error(
                    f"the column event_date_time of {name!r} is {kind}, which stores another time than it is given: "
                    "stored events would not be found, and would be stored again",
                    f"RENAME TABLE {name} TO {name}_old; then run `outhaul setup`, and copy the rows",
                )
    return "1900 to 2299"


CHECKS: dict[str, Callable[[Trial], str]] = {
    "tokens": tokens,
    "one server": one_server,
    "running queries": running_queries,
    "row policies": row_policies,
    "same tables": same_tables,
    "times": times,
}
"""The trials, in the order in which they run."""


def _insert(
    trial: Trial, run: str, times_us: tuple[int, ...], batch: int, more: Mapping[str, object] | None = None
) -> None:
    rows = pa.record_batch(
        {
            "number": pa.array(range(len(times_us)), pa.uint64()),
            "at": pa.array(times_us, pa.timestamp("us", "UTC")),
        }
    )
    trial.clickhouse.command(
        query("trial_insert", trial=trial.settings.trial_table),
        parameters={"run": run},
        settings=_settings(trial, batch) | dict(more or {}),
        data=encode(rows),
    )


def _settings(trial: Trial, batch: int) -> dict[str, object]:
    """Return the settings with which a batch of this number is inserted."""
    return batch_settings(trial.settings.source, batch, trial.mark, TIMEOUT_S)


def _found(trial: Trial, connection: ClickHouse, run: str, wanted: int) -> tuple[int, int]:
    """Return how many rows of a run a connection finds in the table and in the view; waits for a replica that lags."""
    text = query("trial_rows", trial=trial.settings.trial_table, trial_copies=trial.settings.trial_copies)
    deadline = time.monotonic() + (_LAG_S if trial.is_replicated else 0.0)
    while True:
        stored, viewed = connection.rows(text, parameters={"run": run})[0]
        if min(stored, viewed) >= wanted or time.monotonic() >= deadline:
            return int(stored), int(viewed)
        time.sleep(_POLL_S)


def _is_listed(connection: ClickHouse, mark: str, own_mark: str) -> bool:
    """Tell whether each of some requests on a connection finds a running query with this mark."""
    text = query("trial_running", own_mark=clickhouse_literal(own_mark))
    return all(connection.rows(text, parameters={"mark": mark})[0][0] for _ in range(_REQUESTS))


def _finds_itself(trial: Trial, connection: ClickHouse) -> bool:
    return _is_listed(connection, trial.mark, trial.mark)


def _is_found_while_it_runs(trial: Trial, seconds: float) -> bool:
    """Run a query for some seconds, and tell whether each connection lists it until then."""
    mark = f"{trial.mark}/sleeps"

    def sleep() -> None:
        # A server that refuses it lists nothing, which is noticed.
        with suppress(PipelineError):
            trial.clickhouse.rows(query("trial_sleep", sleeps=_sleeps(seconds), mark=clickhouse_literal(mark)))

    sleeping = threading.Thread(target=sleep, name="outhaul-trial", daemon=True)
    sleeping.start()
    is_found = True
    for connection in trial.connections:
        # The query needs a moment to begin; a server that does not have it never lists it.
        while not (is_found := _is_listed(connection, mark, trial.mark)) and sleeping.is_alive():
            time.sleep(_POLL_S / 5)
        if not is_found:
            break
    sleeping.join()
    return is_found


def _sleeps(seconds: float) -> str:
    """Return expressions that sleep one after another; ClickHouse evaluates equal ones only once, so they differ."""
    count = math.ceil(seconds / _AT_A_TIME_S)
    return ", ".join(f"sleep({seconds / count - number / 1000:.3f})" for number in range(count))


def _plans(trial: Trial, tables: list[str]) -> dict[str, list[str]]:
    """Return lines of the plan of a query for each table, by its name; none for a table without rows."""
    each = [query("trial_filter", table=name, label=clickhouse_literal(name)) for name in tables]
    asked = "\nUNION ALL\n".join(each)
    plans: dict[str, list[str]] = {name: [] for name in tables}
    for name, line in trial.clickhouse.rows(f"SELECT name, explain FROM (\n{asked}\n)"):  # noqa: S608 - of sql/
        plans[str(name)].append(str(line))
    return plans


def _filters(trial: Trial, plan: list[str]) -> list[str] | None:
    """Return the filters of row policies that may hide rows of our source; None if the table has no rows."""
    if not plan:
        return None
    ours = re.compile(rf"equals\(cdc_source, '{re.escape(trial.settings.source)}'_\w+\)")
    shown = [found[1].replace("\\'", "'") for line in plan if (found := _FILTER.search(line.strip()))]
    return [one for one in shown if not ours.fullmatch(one)]


def _policies(trial: Trial, table: str) -> list[str] | None:
    """Return the row policies on a table that may hide rows; None if this user may not see the policies."""
    try:
        rows = trial.clickhouse.rows(query("row_policies"), parameters={"table": table})
    except FatalError as error:
        if error.code != ACCESS_DENIED:
            raise
        return None
    return [f"{name}, USING {condition}" for name, condition in rows]


def _is_changed(trial: Trial, kind: str, end_us: int) -> bool:
    """Tell whether a column of this type stores another time; a time that it refuses becomes a dead letter."""
    try:
        ((stored_us,),) = trial.clickhouse.rows(query("trial_time", type=kind), parameters={"us": end_us})
    except PipelineError as error:
        if error.code is None or isinstance(error, TransientError):
            raise
        return False
    return stored_us is None or abs(int(stored_us) - end_us) > _PRECISION_US
