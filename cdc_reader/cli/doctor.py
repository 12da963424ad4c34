"""`outhaul doctor` -> a checklist of what the pipeline needs, with a fix for each problem.

Edge: the command line.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.columns import Columns
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from outhaul.cdc_reader.operate.doctor.checklist import examine
from outhaul.cdc_reader.operate.doctor.finding import State, worst
from outhaul.sink.errors import Exit
from outhaul.sink.settings import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from outhaul.cdc_reader.operate.doctor.finding import Finding, Section

_MARKS = {State.PASS: ("✓", "green"), State.WARN: ("!", "yellow"), State.FAIL: ("✗", "red")}


def doctor(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of {group, check, state, found, fix}.")] = False,
) -> None:
    """Check servers, grants, tables, slot, workers and clocks; exit 1 if a check fails, 0 if there are only warnings.

    It changes nothing but the table of the trials, and takes a few seconds. Each problem comes with the fix to type.

    Example: outhaul doctor --json | jq -r '.[] | select(.state != "pass") | .fix'
    """
    sections = examine(load())
    if as_json:
        typer.echo(json.dumps([line for section in sections for line in _json(section)], ensure_ascii=False))
    else:
        show(Console(highlight=False), sections)
    raise typer.Exit(Exit.NOT_FINE if any(worst(section) is State.FAIL for section in sections) else Exit.FINE)


def _json(section: Section) -> Iterator[dict[str, str]]:
    for finding in section.findings:
        yield {"group": section.group, **asdict(finding)}


def show(console: Console, sections: Sequence[Section]) -> None:
    """Print the passed checks of each server side by side, and each other check on its own line with its fix."""
    for section in sections:
        console.print(Text(section.group, style="bold"))
        fine = [finding for finding in section.findings if finding.state is State.PASS]
        if fine:
            console.print(Padding(Columns(map(_passed, fine), equal=True, column_first=True), (0, 0, 0, 2)))
        for finding in section.findings:
            if finding.state is not State.PASS:
                _print_trouble(console, finding)
    counts = {state: sum(f.state is state for section in sections for f in section.findings) for state in State}
    console.print(Text(", ".join(f"{count} {state}" for state, count in counts.items()), style="bold"))


def _passed(finding: Finding) -> Text:
    mark, colour = _MARKS[finding.state]
    return Text.assemble((f"{mark} ", colour), f"{finding.check}: ", (finding.found, "dim"))


def _print_trouble(console: Console, finding: Finding) -> None:
    mark, colour = _MARKS[finding.state]
    line = Text.assemble((f"{mark} {finding.check}: ", f"bold {colour}"), finding.found)
    console.print(Padding(line, (0, 0, 0, 2)))
    if finding.fix:
        # Not wrapped, so that it can be copied.
        console.print(Text(f"      {finding.fix}", style="dim"), soft_wrap=True)
