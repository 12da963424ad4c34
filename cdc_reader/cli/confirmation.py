"""A plan that destroys something -> the operator's confirmation, or an exit that changed nothing.

Edge: the terminal. Scripts pass `--yes`.
"""

from __future__ import annotations

import sys

import typer

from outhaul.sink.errors import Exit, FatalError


def consent(question: str, *, yes: bool) -> None:
    """Return if the operator confirms; `question` is asked on standard error, after the plan was shown.

    Raises:
        FatalError: stdin is not a terminal, and `--yes` was not passed.
        typer.Exit: the operator does not agree; nothing was changed.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise FatalError("confirmation needed, but stdin is not a terminal", todo="Pass --yes", exit_code=Exit.USAGE)
    if not typer.confirm(question, err=True):
        typer.echo("nothing was changed", err=True)
        raise typer.Exit(Exit.NOT_FINE)
