"""Members of `Exit` -> docs/reference/exit-codes.md.

Edge: reads the titles of the runbooks.
"""

from __future__ import annotations

from pathlib import Path

from outhaul.sink.errors import Exit

_RUNBOOKS = Path(__file__).resolve().parents[2] / "docs" / "runbooks"
_HEAD = """# Exit codes

`outhaul reader`, `outhaul worker` and all commands exit with these codes. A process that stops on
an error prints one line to standard error: what happened, and what to do. The exit code names the
kind of problem, for supervisors and scripts.

The code generates this page: `python -m outhaul.deploy.reference`.

| code | meaning | what to do | runbook |
|---|---|---|---|
"""


def page() -> str:
    """Return the page."""
    return _HEAD + "".join(_row(code) for code in Exit)


def _row(code: Exit) -> str:
    runbooks = ", ".join(f"[{_title(name)}](../runbooks/{name}.md)" for name in code.pages)
    return f"| {int(code)} | {code.meaning} | {code.action} | {runbooks} |\n"


def _title(name: str) -> str:
    text = (_RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
    return text.partition("\n")[0].removeprefix("# ")
