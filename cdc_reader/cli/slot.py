"""`outhaul slot` -> the replication slot is shown, created, moved or dropped, after a plan that says what that skips.

Edge: the command line. Events that a slot skips are not lost: they are in the outbox, and are copied from there.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outhaul.cdc_reader.cli import options, output
from outhaul.cdc_reader.cli.confirmation import consent
from outhaul.cdc_reader.cli.connections import both_sides
from outhaul.cdc_reader.outbox import heal as healing
from outhaul.cdc_reader.outbox.heal_due import due, note_accepted, note_done, note_due
from outhaul.cdc_reader.postgres.connect import connect_stream
from outhaul.cdc_reader.postgres.preflight import check_redis
from outhaul.cdc_reader.postgres.slot_view import slot_facts
from outhaul.cdc_reader.slots import change as slot_change
from outhaul.cdc_reader.slots.change_lock import hold
from outhaul.cdc_reader.slots.plan import Plan, make_plan
from outhaul.sink.errors import Exit, FatalError, PipelineError
from outhaul.sink.position import NO_LSN, Lsn
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.settings import Settings, Stream, load

if TYPE_CHECKING:
    from collections.abc import Iterator

slot = typer.Typer(
    name="slot",
    help="Show, create, drop, advance or reset the slot. Skipped events are copied from the outbox.",
    no_args_is_help=True,
)

_GIVE_UP_S = 120.0

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan, change nothing.")]
AcceptLoss = Annotated[bool, typer.Option("--accept-loss", help="Do not copy skipped events; they are lost.")]


@slot.command()
def show(*, shard: options.Shard = None, as_json: Json = False) -> None:
    """Show the slot and the events that it still has to deliver; exit 1 if no reader could stream from it.

    Example: outhaul slot show --json | jq .unread.events
    """
    stream = options.stream(load(), shard)
    with both_sides(stream.settings):
        plan = make_plan(stream, "none", skips=False, heals=True)
    _print(plan, as_json=as_json)
    raise typer.Exit(Exit.NOT_FINE if plan.problem else Exit.FINE)


@slot.command()
def create(*, shard: options.Shard = None, yes: Yes = False, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Create the slot at the current end of the WAL, and copy events that the outbox has and ClickHouse lacks.

    Example: outhaul slot create --yes
    """
    stream = options.stream(load(), shard)
    with connect_stream(stream.settings) as conn:
        if slot_facts(conn, stream) is not None:
            raise FatalError(
                f"slot {stream.slot!r} already exists",
                todo="Show it with `outhaul slot show`; recreate it with `outhaul slot reset --recreate`",
                exit_code=Exit.USAGE,
            )
    _recreate(stream, "create the slot at the current end of the WAL", False, yes, dry_run, as_json)


@slot.command()
def drop(
    *,
    shard: options.Shard = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    accept_loss: AcceptLoss = False,
    as_json: Json = False,
) -> None:
    """Drop the slot; Postgres then keeps no WAL for it. `slot create` later copies the events that it had to deliver.

    Example: outhaul slot drop --dry-run
    """
    stream = options.stream(load(), shard)
    with both_sides(stream.settings) as clickhouse:
        plan = make_plan(stream, "drop the slot", skips=True, heals=not accept_loss)
        if plan.slot is None:
            raise FatalError(f"slot {stream.slot!r} does not exist", exit_code=Exit.SLOT_MISSING)
        _confirm(plan, "Drop the slot?", yes=yes, dry_run=dry_run, as_json=as_json)
        with hold(stream) as conn:
            facts = slot_facts(conn, stream)
            at = facts.confirmed if facts and facts.confirmed else NO_LSN
            (note_accepted if accept_loss else note_due)(clickhouse, (stream,), at)
            slot_change.drop(conn, stream)
    _report(plan, {"dropped": True, "next": "outhaul slot create"}, as_json=as_json)


@slot.command()
def advance(
    lsn: Annotated[str, typer.Argument(help="New position, an LSN such as 16/B374D848.")],
    *,
    shard: options.Shard = None,
    accept_loss: AcceptLoss = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Move the slot forward to an LSN; `outhaul verify --repair` then copies the skipped events from the outbox.

    Example: outhaul slot advance 16/B374D848
    """
    _advance(options.stream(load(), shard), _lsn(lsn), accept_loss, yes, dry_run, as_json)


@slot.command()
def reset(
    *,
    shard: options.Shard = None,
    to: Annotated[str, typer.Option(help="now, confirmed, or an LSN such as 16/B374D848.")] = "",
    recreate: Annotated[bool, typer.Option("--recreate", help="Drop and create it: lost, missing, failover.")] = False,
    accept_loss: AcceptLoss = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Give the slot a position from which the reader can continue; skipped events are copied from the outbox.

    Example: outhaul slot reset --to now --dry-run
    """
    stream = options.stream(load(), shard)
    if recreate or to == "now":
        if to not in {"", "now"}:
            raise FatalError(
                "a recreated slot always begins at the current end of the WAL",
                todo="Leave out --to",
                exit_code=Exit.USAGE,
            )
        _recreate(stream, "recreate the slot at the current end of the WAL", accept_loss, yes, dry_run, as_json)
    elif to == "confirmed":
        action = "end the session and stream again from the confirmed position"
        with both_sides(stream.settings) as clickhouse:
            plan = make_plan(stream, action, skips=False, heals=True)
            _confirm(plan, "Do it?", yes=yes, dry_run=dry_run, as_json=as_json)
            at = slot_change.restart(stream, clickhouse)
            following = {"next": "outhaul verify --repair"} if due(clickhouse, (stream,)) else {}
        _report(plan, {"slot_at": str(at), **following}, as_json=as_json)
    elif to:
        _advance(stream, _lsn(to), accept_loss, yes, dry_run, as_json)
    else:
        raise FatalError(
            "no position is given", todo="Pass --to now, --to confirmed, --to LSN or --recreate", exit_code=Exit.USAGE
        )


def _recreate(
    stream: Stream,
    action: str,
    accept_loss: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    with both_sides(stream.settings) as clickhouse:
        plan = make_plan(stream, action, skips=True, heals=not accept_loss)
        _confirm(plan, "Do it?", yes=yes, dry_run=dry_run, as_json=as_json)
        _check_redis(stream.settings)
        stored = 0
        with slot_change.recreate(stream, clickhouse, accept_loss=accept_loss, waiting=_print_waiting) as line:
            if not accept_loss:
                notes = due(clickhouse, (stream,))
                with _copy_error(stream), output.range_bar("healing") as on_range:
                    done = healing.heal_all(stream, line, on_range, give_up_s=_GIVE_UP_S)
                    stored = sum(one.stored for one in done)
                note_done(clickhouse, notes)
        _report(plan, {"slot_at": str(line.lsn), "stored": stored}, as_json=as_json)


def _advance(
    stream: Stream,
    target: Lsn,
    accept_loss: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    with connect_stream(stream.settings) as conn:
        slot_change.check_target(conn, stream, target)
    with both_sides(stream.settings) as clickhouse:
        plan = make_plan(stream, f"move the slot forward to {target}", skips=True, heals=not accept_loss)
        question = f"Do it? At most {plan.unread.events:,} events are skipped."
        _confirm(plan, question, yes=yes, dry_run=dry_run, as_json=as_json)
        at = slot_change.advance(stream, clickhouse, target, accept_loss=accept_loss)
    following = {} if accept_loss else {"next": "outhaul verify --repair"}
    _report(plan, {"slot_at": str(at), **following}, as_json=as_json)


def _confirm(plan: Plan, question: str, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    if dry_run or not as_json:
        _print(plan, as_json=as_json)
    if dry_run:
        raise typer.Exit(Exit.FINE)
    consent(question, yes=yes)


def _print(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(plan.to_json()))
        return
    found, unread = plan.slot, plan.unread
    rows = [("slot", _described(found) if found else "does not exist")]
    rows.append(("problem", f"[red]{plan.problem}[/]" if plan.problem else "none"))
    where = f": {unread.which}, {unread.first_time} to {unread.last_time}"
    rows.append(("unread", f"{unread.events:,} events that ClickHouse lacks" + (where if unread.events else "")))
    rows.append(("stored ahead", f"{plan.stored_ahead:,} events past the slot's position"))
    if plan.action != "none":
        rows.append(("plan", plan.action))
        rows.append(("copied", f"{plan.healed:,} events from the outbox"))
        rows.append(("lost", f"[red]{plan.lost:,} events[/]" if plan.lost else "nothing"))
    rows += [("waits for", _open(one)) for one in plan.open_transactions]
    output.facts(rows)


def _open(transaction: dict[str, Any]) -> str:
    who = f"pid {transaction['pid']}, " if transaction["pid"] else ""
    return f"{who}{transaction['seconds']} s: {transaction['query']}"


def _described(found: dict[str, Any]) -> str:
    state = "active" if found["active_pid"] else "inactive"
    place = f"{found['plugin']}, database {found['database']}, confirmed {found['confirmed']}"
    return f"{found['name']}, {state}, {place}, wal_status {found['wal_status']}"


def _report(plan: Plan, done: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"plan": plan.to_json(), **done}))
    else:
        output.facts([(name.replace("_", " "), str(value)) for name, value in done.items()])


def _lsn(text: str) -> Lsn:
    try:
        return Lsn.parse(text)
    except ValueError as error:
        raise FatalError(str(error), exit_code=Exit.USAGE) from None


def _print_waiting() -> None:
    typer.echo(
        "waiting for open transactions to end (pg_stat_activity, backend_xid IS NOT NULL; pg_prepared_xacts)", err=True
    )


def _check_redis(settings: Settings) -> None:
    with Payloads.of(settings) as payloads:
        check_redis(settings, payloads)


@contextmanager
def _copy_error(stream: Stream) -> Iterator[None]:
    """Add to the error of a failed copy that the slot works, and what to type."""
    try:
        yield
    except PipelineError as error:
        raise type(error)(
            f"slot {stream.slot!r} is ready, but not all events that it skipped are copied: {error.message}",
            code=error.code,
            todo="Nothing is lost. Fix the cause, then type: outhaul verify --repair",
            exit_code=error.exit_code,
        ) from error
