"""A line of the log, and the page that lists each log event with its level."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
IN_DOCS = re.compile(r"^\| `([a-z_]+)` \| ([a-z, ]+) \| [a-z, ]+ \| ", re.MULTILINE)
LEVELS = {name: name for name in ("debug", "info", "warning", "error", "critical")} | {"exception": "error"}

SAY = """
import structlog
from outhaul.sink.telemetry import log_context, logs
from outhaul.sink.errors import TransientError
from outhaul.sink.telemetry.scrub import Scrub
logs.configure("json", level=LEVEL, scrub=Scrub({"planted"}), clock=lambda: 0.0)
log_context.begin(source="app", slot="app")
log = structlog.get_logger()
for number in range(5):
    log.warning("retrying", where="here", error=TransientError(f"planted {number}", code=7))
log.info("unseen")
log_context.begin(source="another")
log.error("stopped", text="pass=planted")
"""


def test_the_page_lists_every_log_event_of_the_code_at_its_level() -> None:
    code: dict[str, set[str]] = {}
    for folder in ("sink", "cdc_reader"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(
                        ast.Attribute(ast.Name(logger) | ast.Attribute(attr=logger), method),
                        [ast.Constant(str(event)), *_],
                    ) if method in LEVELS and "log" in logger:
                        code.setdefault(event, set()).add(LEVELS[method])
    listed = IN_DOCS.findall((ROOT / "docs" / "reference" / "log-events.md").read_text())
    assert {event: set(levels.split(", ")) for event, levels in listed} == code
    assert [event for event, _ in listed] == sorted(code)


def test_a_line_names_whose_it_is_hides_secrets_and_is_not_repeated() -> None:
    first, last = said("WARNING")
    assert (first["event"], first["source"], first["slot"]) == ("retrying", "app", "app")
    assert (first["error"], first["kind"], first["code"]) == ("[secret] 0", "TransientError", 7)
    assert (last["event"], last["source"], last["text"]) == ("stopped", "another", "pass=[secret]")


def test_the_level_debug_writes_each_repetition() -> None:
    assert [line["event"] for line in said("DEBUG")] == ["retrying"] * 5 + ["unseen", "stopped"]


def said(level: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-c", SAY.replace("LEVEL", repr(level))]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stderr.splitlines()]
