"""What was looked at and how it is -> Finding, the line of a checklist.

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
    """How a thing is: as it must be, worth a change, or broken."""

    PASS = "pass"  # noqa: S105 - no password
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was found, one line, and what to type where it is not as it must be."""

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
    """Return a finding that asks for nothing."""
    return Finding(check, State.PASS, found)


def warn(check: str, found: str, fix: str = "") -> Finding:
    """Return a finding that an operator should know of."""
    return Finding(check, State.WARN, found, fix)


def fail(check: str, found: str, fix: str = "") -> Finding:
    """Return a finding with which the pipeline does not work, or not for long."""
    return Finding(check, State.FAIL, found, fix)


def broken(check: str, error: PipelineError) -> Finding:
    """Return the finding that an error of ours is."""
    return fail(check, error.message, error.todo)


def tried(check: str, found: str, test: Callable[[], object]) -> Finding:
    """Run a test that raises; `found` describes what passes it."""
    try:
        test()
    except PipelineError as error:
        return broken(check, error)
    return fine(check, found)


def worst(section: Section) -> State:
    """Return the worst state in a section."""
    states = {finding.state for finding in section.findings}
    return next((state for state in (State.FAIL, State.WARN) if state in states), State.PASS)


def size(count: float) -> str:
    """Print a number of bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:  # noqa: PLR2004 - the next unit
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
