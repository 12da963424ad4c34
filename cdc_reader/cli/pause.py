"""`outhaul pause` -> the reader takes no rows and keeps its session; exit code 1 if it does not confirm that.

Edge: the command line.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Annotated

import typer

from outhaul.cdc_reader.cli import options
from outhaul.cdc_reader.operate import pause_command
from outhaul.cdc_reader.operate.pause_command import PauseResult, Reader
from outhaul.cdc_reader.session.pause import check_length
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import Exit
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.settings import load

_TIMEOUT_S = 10
_WAIT_S = 30.0


def pause(
    *,
    lasting: Annotated[
        float | None,
        typer.Option(
            "--for",
            parser=options.duration(),
            metavar="DURATION",
            help="Resume after this time: 90s, 30m, 2h, 1h30m, 1d.",
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Text for `outhaul status` to show.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Stop reading from the slot. Session and slot are kept, and batches in flight are stored; WAL accumulates.

    The pause holds across restarts until `outhaul resume`. Waits up to 30 s until nothing is in flight, else exit 1.

    Example: outhaul pause --for 2h --reason "ClickHouse upgrade"
    """
    for_s = 0 if lasting is None else check_length(math.ceil(lasting))
    settings = load()
    with Payloads.of(settings) as payloads, ClickHouse.of(settings, timeout_s=_TIMEOUT_S) as clickhouse:
        result = pause_command.pause(settings, payloads, clickhouse, for_s=for_s, reason=reason, wait_s=_WAIT_S)
    typer.echo(json.dumps(result.to_json()) if as_json else _described(result))
    raise typer.Exit(Exit.FINE if result.reader in {Reader.PAUSED, Reader.NONE} else Exit.NOT_FINE)


def _described(result: PauseResult) -> str:
    ends = "until `outhaul resume`"
    if result.pause and result.pause.until:
        ends = f"until {datetime.fromtimestamp(result.pause.until, UTC).isoformat(timespec='seconds')}"
    match result.reader:
        case Reader.PAUSED:
            return f"paused {ends}: the reader takes no rows, and nothing is in flight"
        case Reader.NONE:
            return f"paused {ends}: no reader runs; the pause applies to the next one"
        case Reader.FINISHING:
            return (
                f"pausing: the reader takes no rows, but {result.in_flight_batches} batches in flight are not stored "
                "yet. Check for progress: `outhaul status`"
            )
        case _:
            return (
                f"the pause is recorded, but the reader has not confirmed it within {_WAIT_S:.0f} s. "
                "Check the reader: `outhaul status`"
            )
