"""`outhaul slot`: look at the replication slot, make it, move it, drop it; first what that costs, then the deed.

A slot that goes past events loses none of them: they are in the outbox, and are copied from there.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outhaul.cdc_reader.cli import options, output
from outhaul.cdc_reader.cli.confirm import consent
from outhaul.cdc_reader.cli.connections import both_sides
from outhaul.cdc_reader.outbox import heal as healing
from outhaul.cdc_reader.outbox.heal_due import due, note_accepted, note_done, note_due
from outhaul.cdc_reader.postgres.connect import connect_stream
from outhaul.cdc_reader.postgres.preflight import check_redis
from outhaul.cdc_reader.postgres.slot_view import slot_facts
from outhaul.cdc_reader.slots import change as slot_change
from outhaul.cdc_reader.slots.hold import hold
from outhaul.cdc_reader.slots.plan import Plan, make_plan
from outhaul.sink.errors import Exit, FatalError, PipelineError
from outhaul.sink.position import NO_LSN, Lsn
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.settings import Settings, load

if TYPE_CHECKING:
    from collections.abc import Iterator

slot = typer.Typer(
    name="slot",
    help="The replication slot: show, create, drop, advance, reset. A plan comes first; what is skipped is healed.",
    no_args_is_help=True,
)

_PATIENCE_S = 120.0

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan, change nothing.")]
AcceptLoss = Annotated[bool, typer.Option("--accept-loss", help="Do not copy what is skipped: it is lost.")]


@slot.command()
def show(*, shard: options.Shard = None, as_json: Json = False) -> None:
    """Show the slot, and which events it still has to bring; exit 1 where nobody could stream from it.

    Example: outhaul slot show --json | jq .unread.events
    """
    settings = options.stream(load(), shard)
    with both_sides(settings):
        plan = make_plan(settings, "none", skips=False, heals=True)
    _print(plan, as_json=as_json)
    raise typer.Exit(Exit.NOT_FINE if plan.problem else Exit.FINE)


@slot.command()
def create(*, shard: options.Shard = None, yes: Yes = False, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Create the slot where the log ends now, and copy what the outbox holds already and ClickHouse lacks.

    Example: outhaul slot create --yes
    """
    settings = options.stream(load(), shard)
    with connect_stream(settings) as conn:
        if slot_facts(conn, settings) is not None:
            raise FatalError(
                f"slot {settings.slot!r} exists",
                todo="Look at it with `outhaul slot show`; make it anew with `outhaul slot reset --recreate`",
                exit_code=Exit.USAGE,
            )
    _recreate(settings, "create the slot where the log ends now", False, yes, dry_run, as_json)


@slot.command()
def drop(
    *,
    shard: options.Shard = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    accept_loss: AcceptLoss = False,
    as_json: Json = False,
) -> None:
    """Drop the slot: Postgres keeps no more log for it. What it had to bring is copied when there is one again.

    Example: outhaul slot drop --dry-run
    """
    settings = options.stream(load(), shard)
    with both_sides(settings) as clickhouse:
        plan = make_plan(settings, "drop the slot", skips=True, heals=not accept_loss)
        if plan.slot is None:
            raise FatalError(f"slot {settings.slot!r} does not exist", exit_code=Exit.SLOT_MISSING)
        _agree(plan, "Drop it?", yes=yes, dry_run=dry_run, as_json=as_json)
        with hold(settings) as conn:
            facts = slot_facts(conn, settings)
            at = facts.confirmed if facts and facts.confirmed else NO_LSN
            (note_accepted if accept_loss else note_due)(clickhouse, settings, at)
            slot_change.drop(conn, settings)
    _report(plan, {"dropped": True, "next": "outhaul slot create"}, as_json=as_json)


@slot.command()
def advance(
    lsn: Annotated[str, typer.Argument(help="Where to: a position in the log, such as 16/B374D848.")],
    *,
    shard: options.Shard = None,
    accept_loss: AcceptLoss = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Move the slot forward to a position, and copy what that skips from the outbox.

    Example: outhaul slot advance 16/B374D848
    """
    _advance(options.stream(load(), shard), _lsn(lsn), accept_loss, yes, dry_run, as_json)


@slot.command()
def reset(
    *,
    shard: options.Shard = None,
    to: Annotated[str, typer.Option(help="now, confirmed, or a position in the log such as 16/B374D848.")] = "",
    recreate: Annotated[bool, typer.Option("--recreate", help="Make it anew: lost, gone, or of a failover.")] = False,
    accept_loss: AcceptLoss = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Put the slot where it can go on from, whatever state it is in; what it skips is copied from the outbox.

    Example: outhaul slot reset --to now --dry-run
    """
    settings = options.stream(load(), shard)
    if recreate or to == "now":
        if to not in {"", "now"}:
            raise FatalError("a slot that is made anew begins now", todo="Leave out --to", exit_code=Exit.USAGE)
        _recreate(settings, "make the slot anew where the log ends now", accept_loss, yes, dry_run, as_json)
    elif to == "confirmed":
        action = "end the session and begin from the confirmed position"
        with both_sides(settings) as clickhouse:
            plan = make_plan(settings, action, skips=False, heals=True)
            _agree(plan, "Do it?", yes=yes, dry_run=dry_run, as_json=as_json)
            at = slot_change.restart(settings, clickhouse)
            following = {"next": "outhaul verify --repair"} if due(clickhouse, settings) else {}
        _report(plan, {"slot_at": str(at), **following}, as_json=as_json)
    elif to:
        _advance(settings, _lsn(to), accept_loss, yes, dry_run, as_json)
    else:
        raise FatalError(
            "where to is not said", todo="Say --to now, --to confirmed, --to LSN or --recreate", exit_code=Exit.USAGE
        )


def _recreate(
    settings: Settings,
    action: str,
    accept_loss: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    with both_sides(settings) as clickhouse:
        plan = make_plan(settings, action, skips=True, heals=not accept_loss)
        _agree(plan, "Do it?", yes=yes, dry_run=dry_run, as_json=as_json)
        _check_redis(settings)
        stored = 0
        with slot_change.make_anew(settings, clickhouse, accept_loss=accept_loss, waiting=_say_waiting) as line:
            if not accept_loss:
                notes = due(clickhouse, settings)
                with _still_due(settings), output.range_bar("healing") as on_range:
                    done = healing.heal_all(settings, line, on_range, patience_s=_PATIENCE_S)
                    stored = sum(one.stored for one in done)
                note_done(clickhouse, notes)
        _report(plan, {"slot_at": str(line.lsn), "stored": stored}, as_json=as_json)


def _advance(
    settings: Settings,
    target: Lsn,
    accept_loss: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    with connect_stream(settings) as conn:
        slot_change.check_target(conn, settings, target)
    with both_sides(settings) as clickhouse:
        plan = make_plan(settings, f"move the slot forward to {target}", skips=True, heals=not accept_loss)
        _agree(plan, "Do it? At most so many events are skipped.", yes=yes, dry_run=dry_run, as_json=as_json)
        at = slot_change.advance(settings, clickhouse, target, accept_loss=accept_loss)
    following = {} if accept_loss else {"next": "outhaul verify --repair"}
    _report(plan, {"slot_at": str(at), **following}, as_json=as_json)


def _agree(plan: Plan, question: str, *, yes: bool, dry_run: bool, as_json: bool) -> None:
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
    rows = [("slot", _in_words(found) if found else "none")]
    rows.append(("problem", f"[red]{plan.problem}[/]" if plan.problem else "none"))
    where = f": {unread.which}, {unread.first_time} to {unread.last_time}"
    rows.append(("unread", f"{unread.events:,} events that ClickHouse lacks" + (where if unread.events else "")))
    rows.append(("stored ahead", f"{plan.stored_ahead:,} events past the slot's position"))
    if plan.action != "none":
        rows.append(("plan", plan.action))
        rows.append(("healed", f"{plan.healed:,} events are copied from the outbox"))
        rows.append(("lost", f"[red]{plan.lost:,} events[/]" if plan.lost else "nothing"))
    rows += [("waits for", f"pid {one['pid']}, {one['seconds']} s: {one['query']}") for one in plan.open_transactions]
    output.facts(rows)


def _in_words(found: dict[str, Any]) -> str:
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


def _say_waiting() -> None:
    typer.echo("waiting for transactions that are open (pg_stat_activity, backend_xid IS NOT NULL)", err=True)


def _check_redis(settings: Settings) -> None:
    payloads = Payloads(settings.redis_url.get_secret_value(), settings.source)
    try:
        check_redis(settings, payloads)
    finally:
        payloads.close()


@contextmanager
def _still_due(settings: Settings) -> Iterator[None]:
    """Let a heal that fails say that the slot is fine and what is left to do."""
    try:
        yield
    except PipelineError as error:
        raise type(error)(
            f"slot {settings.slot!r} is ready and streams, but what it skipped is not all copied: {error.message}",
            code=error.code,
            todo="Nothing is lost; when that is mended: `outhaul verify --repair`",
            exit_code=error.exit_code,
        ) from error
