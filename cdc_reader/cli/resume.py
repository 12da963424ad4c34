"""`outhaul resume` -> the reader continues where it paused; exit code 1 if it does not confirm that.

Edge: the command line.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from outhaul.cdc_reader.operate import pause_command
from outhaul.cdc_reader.operate.pause_command import Reader
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import Exit
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.settings import load

_TIMEOUT_S = 10
_WAIT_S = 15.0

_DESCRIBED = {
    Reader.RUNNING: "resumed: the reader takes rows",
    Reader.NONE: "resumed: no reader runs; the next one will take rows at once",
}


def resume(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Let a paused reader continue at once; harmless if nothing is paused. Exit 1 if no reader confirms within 15 s.

    Example: outhaul resume
    """
    settings = load()
    with Payloads.of(settings) as payloads, ClickHouse.of(settings, timeout_s=_TIMEOUT_S) as clickhouse:
        result = pause_command.resume(settings, payloads, clickhouse, wait_s=_WAIT_S)
    late = (
        f"the end of the pause is recorded, but the reader has not confirmed it within {_WAIT_S:.0f} s. "
        "Check the reader: `outhaul status`"
    )
    typer.echo(json.dumps(result.to_json()) if as_json else _DESCRIBED.get(result.reader, late))
    raise typer.Exit(Exit.FINE if result.reader in _DESCRIBED else Exit.NOT_FINE)
