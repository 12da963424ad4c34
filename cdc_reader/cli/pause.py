"""`outhaul pause`: the reader takes no rows, and keeps its session; exit code 1 if it does not say so."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from outhaul.cdc_reader.operate import pause_command
from outhaul.cdc_reader.operate.pause_command import Reader, Told
from outhaul.cdc_reader.session.pause import check_length
from outhaul.sink import duration
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import Exit
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.settings import load

_TIMEOUT_S = 10
_WAIT_S = 30.0


def pause(
    *,
    lasting: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="End by itself: 90s, 30m, 2h, 1h30m, 1d.")
    ] = "",
    reason: Annotated[str, typer.Option(help="What `outhaul status` shows.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Let the reader take no rows; session and slot are kept, and what is in flight is stored. WAL piles up meanwhile.

    Holds across restarts until `outhaul resume`. Waits up to 30 s until nothing is in flight; exit 1 if that fails.

    Example: outhaul pause --for 2h --reason "ClickHouse upgrade"
    """
    for_s = check_length(duration.seconds(lasting)) if lasting else 0
    settings = load()
    payloads = Payloads(settings.redis_url.get_secret_value(), settings.source)
    clickhouse = ClickHouse(settings.clickhouse_url.get_secret_value(), timeout_s=_TIMEOUT_S)
    told = pause_command.pause(settings, payloads, clickhouse, for_s=for_s, reason=reason, wait_s=_WAIT_S)
    typer.echo(json.dumps(told.to_json()) if as_json else _words(told))
    raise typer.Exit(Exit.FINE if told.reader in {Reader.PAUSED, Reader.NONE} else Exit.NOT_FINE)


def _words(told: Told) -> str:
    ends = "until `outhaul resume`"
    if told.pause and told.pause.until:
        ends = f"until {datetime.fromtimestamp(told.pause.until, UTC).isoformat(timespec='seconds')}"
    match told.reader:
        case Reader.PAUSED:
            return f"paused {ends}: the reader takes no rows, and nothing is in flight"
        case Reader.NONE:
            return f"paused {ends}: no reader runs, so this holds for the next one"
        case Reader.FINISHING:
            return (
                f"pausing: the reader takes no rows, but {told.in_flight_batches} batches in flight are not stored yet"
            )
        case _:
            return (
                f"the pause is kept, but the reader has not said within {_WAIT_S:.0f} s that it heard: `outhaul status`"
            )
