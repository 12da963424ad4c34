"""A check and its result -> Finding, a line of the checklist.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from outhaul.sink.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable


class State(StrEnum):
    """The result of a check: it passes, it needs attention, or it is broken."""

    PASS = "pass"  # noqa: S105 - no password
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was found, in one line, and what to type if it does not pass."""

    check: str
    state: State
    found: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """All findings about one server."""

    group: str
    findings: tuple[Finding, ...]


def fine(check: str, found: str) -> Finding:
    """Return a check that passes."""
    return Finding(check, State.PASS, found)


def warn(check: str, found: str, fix: str = "") -> Finding:
    """Return a check that needs an operator's attention."""
    return Finding(check, State.WARN, found, fix)


def fail(check: str, found: str, fix: str = "") -> Finding:
    """Return a failed check: the pipeline does not work, or will soon stop."""
    return Finding(check, State.FAIL, found, fix)


def broken(check: str, error: PipelineError) -> Finding:
    """Return an error as a failed check."""
    return fail(check, error.message, error.todo)


def tried(check: str, found: str, test: Callable[[], object]) -> Finding:
    """Run a test that raises if it fails; `found` describes the result if it passes."""
    try:
        test()
    except PipelineError as error:
        return broken(check, error)
    return fine(check, found)


def worst(section: Section) -> State:
    """Return the worst state of a section."""
    states = {finding.state for finding in section.findings}
    return next((state for state in (State.FAIL, State.WARN) if state in states), State.PASS)
