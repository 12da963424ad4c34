"""Lane of a source -> a new epoch, and a wait until the inserts that began before it have ended.

Edge: ClickHouse, which keeps the fence. Each lane has a fence of its own (sink/lanes.py). Once a newer epoch is
written, ClickHouse refuses every insert of an older owner that begins after that. ClickHouse lists each insert among
the running queries before the insert reads the epoch. So an older insert is either refused, or it is listed and
`wait_for_older_inserts` waits for it. No clock is involved.

Replicas of a table are on several servers (sink/replicas.py). There an insert reads the epoch that its own server has,
and each server lists its own queries alone. So the wait begins with all servers having the new epoch, and then asks all
of them for running inserts. It does not matter which server answers the reader, and which ones the workers.

A ClickHouse that was killed may remember the token of an insert without its rows. So after a restart it refuses every
insert until a reader has raised the epoch: the owner of the epoch must also be in a table that a restart empties. The
tokens of a new epoch are new. Replicated tables store token and rows together, and need no such table.

Source: https://clickhouse.com/docs/operations/system-tables/processes
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from outhaul.sink.clickhouse_errors import ACCESS_DENIED, UNKNOWN_TABLE, is_thrown
from outhaul.sink.errors import Exit, FatalError, PipelineError, TransientError
from outhaul.sink.lanes import fence, mark
from outhaul.sink.position import History
from outhaul.sink.replicas import IN_SEQUENCE, find_servers, not_allowed, servers_in
from outhaul.sink.sql import query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.position import Lsn
    from outhaul.sink.replicas import Servers
    from outhaul.sink.settings import Settings, Stream
    from outhaul.sink.sql import TableExpression

log = structlog.get_logger("outhaul.sink")

_POLL_S = 0.05

# What ClickHouse answers to an insert of an owner that it has forgotten in a restart.
_RESTARTED = "outhaul: ClickHouse was restarted"

# Suffix of the slot's name in an epoch whose slot is on a standby; no slot name contains an @.
_OF_STANDBY = "@standby"
# Added to the server's time limit for an insert, in seconds: the server ends a statement only between two blocks.
_GRACE_S = 10
# Twice the time after which Keeper gives up a session, by default: 30 seconds.
_KEEPER_DECIDES_S = 60.0


class EpochOverError(TransientError):
    """This epoch cannot store anything any more; the next one asks what is stored, and streams the rest."""


def guard(settings: Settings) -> str:
    """Return the condition under which ClickHouse takes an insert; its parameters are `fence` and `owner`."""
    return query("fence", epochs=settings.epochs_table, owners=settings.owners_table)


@dataclass(frozen=True, slots=True)
class Epoch:
    """One owner's epoch, as ClickHouse has it."""

    epoch: int
    owner: str
    history: History


def newest_epoch(clickhouse: ClickHouse, settings: Settings, lane: str) -> Epoch | None:
    """Return the newest epoch of a lane that any server has; None if the lane has had no owner yet.

    Raises:
        TransientError: a replica does not answer.
        PipelineError: ClickHouse refuses or does not answer.
    """
    servers = find_servers(clickhouse, settings)
    return _newest(clickhouse, settings, lane, servers.everywhere(settings.epochs_table))


def newest_epoch_here(clickhouse: ClickHouse, settings: Settings, lane: str) -> Epoch | None:
    """Return the newest epoch that the server has which answers; a replica may not have the newest of all.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    return _newest(clickhouse, settings, lane, settings.epochs_table)


def _newest(clickhouse: ClickHouse, settings: Settings, lane: str, epochs: str | TableExpression) -> Epoch | None:
    parameters = {"source": fence(settings.source, lane)}
    rows = clickhouse.rows(query("latest_epoch", epochs=epochs), parameters=parameters, settings=IN_SEQUENCE)
    if not rows:
        return None
    epoch, owner, system_identifier, timeline, slot = rows[0]
    history = History(system_identifier, int(timeline), of_standby=str(slot).endswith(_OF_STANDBY))
    return Epoch(int(epoch), owner, history)


def raise_epoch(
    clickhouse: ClickHouse,
    stream: Stream,
    history: History,
    confirmed: Lsn,
    epoch: int,
    owner: str,
    *,
    lane: str = "",
) -> None:
    """Write a newer epoch, which fences off older owners of the lane; by default, of the stream's lane.

    Args:
        clickhouse: where the fence is.
        stream: the stream of the new owner.
        history: history of the positions of this epoch.
        confirmed: the slot's confirmed flush.
        epoch: its number.
        owner: name of the new owner.
        lane: the lane, if it is not the stream's.

    Raises:
        TransientError: another owner has done the same at the same moment; begin again.
        FatalError: ClickHouse does not return the epoch that was just written.
        PipelineError: ClickHouse refuses or does not answer.
    """
    settings, lane = stream.settings, lane or stream.lane
    servers = find_servers(clickhouse, settings)
    source = fence(settings.source, lane)
    # The owner first: an epoch whose owner is not there refuses its own inserts.
    clickhouse.command(
        query("add_owner", owners=settings.owners_table, epochs=settings.epochs_table),
        parameters={"source": source, "owner": owner},
        settings={"async_insert": 0},
    )
    clickhouse.command(
        query("raise_epoch", epochs=settings.epochs_table),
        parameters={
            "source": source,
            "in_memory": not servers.are_replicas,
            "epoch": epoch,
            "owner": owner,
            "system_identifier": history.system_identifier,
            "timeline": history.timeline,
            "slot": stream.slot + (_OF_STANDBY if history.of_standby else ""),
            "confirmed_lsn": int(confirmed),
        },
        settings={"async_insert": 0},
    )
    newest = _newest(clickhouse, settings, lane, servers.everywhere(settings.epochs_table))
    if newest is None or newest.epoch < epoch:
        raise _not_shared(clickhouse, f"a row that was just written to {settings.epochs_table!r} is not found there")
    if newest.owner != owner:
        raise TransientError("another owner has raised the epoch at the same moment")


@contextmanager
def as_owner(clickhouse: ClickHouse, settings: Settings, lane: str, epoch: int, owner: str) -> Iterator[None]:
    """Run statements that have the condition of `guard`, and translate its refusals.

    A server that does not have the epoch refuses them, too.

    Args:
        clickhouse: the server.
        settings: source and names of tables.
        lane: the lane of the owner.
        epoch: the epoch of the statements.
        owner: the owner of that epoch.

    Raises:
        EpochOverError: a newer owner has taken over, or ClickHouse was restarted.
        TransientError: a replica does not have the epoch yet.
        PipelineError: as of the statements.
    """
    try:
        yield
    except FatalError as error:
        if is_thrown(error, _RESTARTED):
            raise EpochOverError("ClickHouse was restarted, and takes no insert of this epoch any more") from error
        if not is_thrown(error):
            raise
        why = _why_refused(clickhouse, settings, lane, epoch, owner, error)
        if why is error:
            raise
        raise why from error


def _why_refused(
    clickhouse: ClickHouse, settings: Settings, lane: str, epoch: int, owner: str, error: FatalError
) -> PipelineError:
    newest = newest_epoch_here(clickhouse, settings, lane)
    if newest is not None and newest.epoch >= epoch and newest.owner != owner:
        return EpochOverError("a newer reader has taken over this source")
    if find_servers(clickhouse, settings).are_replicas:
        return TransientError("a replica of ClickHouse has not received the epoch of this reader yet")
    if newest is not None and newest.epoch >= epoch:
        # Not the fence has refused, but somebody else's throwIf.
        return error
    return _not_shared(clickhouse, f"{settings.epochs_table!r} does not have the epoch of this reader")


def _not_shared(clickhouse: ClickHouse, what: str) -> FatalError:
    return FatalError(
        f"ClickHouse at {clickhouse.address}: {what}. The table is not replicated, so either several servers answer "
        "under this address, or a row policy hides rows from this user",
        todo="Let OUTHAUL_CLICKHOUSE_URL lead to one server, or create replicated tables with `outhaul setup "
        "--cluster`; exempt the user from row policies on outhaul's tables",
        exit_code=Exit.CLICKHOUSE_TABLE,
    )


def wait_for_older_inserts(
    clickhouse: ClickHouse, settings: Settings, lane: str | None, wait: Callable[[float], None]
) -> None:
    """Wait until the inserts that run now have ended.

    Args:
        clickhouse: where they run.
        settings: source, and time limit of an insert.
        lane: the lane of the inserts; None for all lanes of the source.
        wait: waits for a number of seconds.

    Raises:
        TransientError: one of the inserts does not end; begin again.
        PipelineError: ClickHouse refuses or does not answer.
    """
    servers = find_servers(clickhouse, settings)
    max_wait_s = settings.insert_timeout_s + _GRACE_S
    if servers.are_replicas and lane is not None:
        _wait_while(lambda: _why_not_everywhere(clickhouse, settings, lane, servers), max_wait_s, wait)
    older: set[object] | None = None

    def why_running() -> str:
        nonlocal older
        running = list_running(clickhouse, settings, lane, servers)
        older = running if older is None else older & running
        return f"{len(older)} older inserts are still running in ClickHouse" if older else ""

    try:
        _wait_while(why_running, max_wait_s, wait)
    except FatalError as error:
        # On one server, an insert that cannot be seen ends at its time limit. A replica may have been cut off from
        # Keeper, and store the insert much later.
        if error.code != ACCESS_DENIED or servers.are_replicas:
            raise
        log.warning(
            "running_queries_hidden",
            waiting_s=max_wait_s,
            todo="GRANT SELECT ON system.processes to avoid this wait",
        )
        wait(max_wait_s)
        return
    if servers.are_replicas:
        _wait_for_keeper(clickhouse, servers, wait)


def _wait_while(why: Callable[[], str], max_wait_s: float, wait: Callable[[float], None]) -> None:
    """Wait until there is no reason any more."""
    waited_s = 0.0
    while doubt := why():
        if waited_s >= max_wait_s:
            raise TransientError(f"{doubt} after {max_wait_s:g} s")
        wait(_POLL_S)
        waited_s += _POLL_S


def _wait_for_keeper(clickhouse: ClickHouse, servers: Servers, wait: Callable[[float], None]) -> None:
    """Wait until no insert that has ended can still be committed.

    If a server loses Keeper amid a commit, the insert ends (code 319), and Keeper may carry out the commit as long as
    it has not given up the session. The server goes on in a new session. So if all sessions are old, all such commits
    are decided.
    """

    def why_young() -> str:
        asked = query("keeper_sessions", sessions=servers.of_system("zookeeper_connection"))
        rows = clickhouse.rows(asked, settings=IN_SEQUENCE)
        if len(rows) < servers.count:
            return f"{servers.count - len(rows)} of {servers.count} replicas of ClickHouse have no session in Keeper"
        youngest_s = min(int(row[2]) for row in rows)
        return f"a replica's session in Keeper is {youngest_s} s old" if youngest_s < _KEEPER_DECIDES_S else ""

    try:
        _wait_while(why_young, _KEEPER_DECIDES_S + _GRACE_S, wait)
    except FatalError as error:
        if error.code not in {ACCESS_DENIED, UNKNOWN_TABLE}:
            raise
        log.warning(
            "keeper_sessions_hidden",
            waiting_s=_KEEPER_DECIDES_S,
            todo="GRANT SELECT ON system.zookeeper_connection to avoid this wait",
        )
        wait(_KEEPER_DECIDES_S)


def _why_not_everywhere(clickhouse: ClickHouse, settings: Settings, lane: str, servers: Servers) -> str:
    """Return which servers lack the newest epoch of a lane; empty if all have it, so that all refuse older inserts."""
    epochs = servers.everywhere(settings.epochs_table)
    newest = _newest(clickhouse, settings, lane, epochs)
    if newest is None:
        return ""
    bound = {"source": fence(settings.source, lane), "epoch": newest.epoch, "owner": newest.owner}
    rows = clickhouse.rows(query("epoch_seen", epochs=epochs), parameters=bound, settings=IN_SEQUENCE)
    lacking = servers.count - len(servers_in(rows))
    return f"{lacking} of {servers.count} replicas of ClickHouse have not received the new epoch" if lacking > 0 else ""


def list_running(clickhouse: ClickHouse, settings: Settings, lane: str | None, servers: Servers) -> set[object]:
    """Return the inserts of a lane, or of all lanes, that run on any of the servers.

    Raises:
        TransientError: a server does not answer.
        PipelineError: ClickHouse refuses.
    """
    name = settings.source if lane is None else fence(settings.source, lane)
    bound = {"mark": mark(name), "all_lanes": lane is None}
    try:
        asked = query("running_inserts", processes=servers.of_system("processes"))
        rows = clickhouse.rows(asked, parameters=bound, settings=IN_SEQUENCE)
    except FatalError as error:
        if error.code == ACCESS_DENIED and servers.are_replicas:
            raise not_allowed(error) from error
        raise
    answered = servers_in(rows)
    if servers.are_replicas and len(answered) < servers.count:
        raise TransientError(f"{len(answered)} of {servers.count} replicas of ClickHouse list their running inserts")
    return {(server, host, number) for server, host, number in rows if number}
