"""What three servers say -> one screen for people."""

from __future__ import annotations

from rich.console import Console

from outhaul.cdc_reader.cli.status import screen
from outhaul.cdc_reader.operate.status.overview import Status


def printed(found: Status) -> str:
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        console.print(screen(found))
    return capture.get()


def test_brackets_in_a_server_s_message_are_shown() -> None:
    said = "Postgres: permission denied [for table outbox] [/red] at 'x[1]'"
    assert said in printed(Status(wrong=[said]))
