"""A plan that destroys something -> the operator's yes, or nothing happens.

Edge: the terminal. Scripts say `--yes`; without a terminal there is nobody to ask.
"""

from __future__ import annotations

import sys

import typer

from outhaul.sink.errors import Exit, FatalError


def consent(question: str, *, yes: bool) -> None:
    """Return when the operator agrees; `question` is asked on standard error, after the plan was shown.

    Raises:
        FatalError: there is no terminal to ask on, and `--yes` was not said.
        typer.Exit: the operator does not agree; nothing was changed.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise FatalError("nobody is there to agree to this plan", todo="Say --yes", exit_code=Exit.USAGE)
    if not typer.confirm(question, err=True):
        typer.echo("nothing was changed", err=True)
        raise typer.Exit(Exit.NOT_FINE)
