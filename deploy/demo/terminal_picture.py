"""Output of `outhaul demo` -> docs/images/demo.svg, a picture of the terminal after the demo.

Edge: `python -m outhaul.deploy.demo.terminal_picture` runs the demo and writes the file. The picture shows the last
state of each progress bar.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

TARGET = Path(__file__).resolve().parents[2] / "docs" / "images" / "demo.svg"
_WIDTH = 92

# What rich sends to redraw a line: cursor up, erase line, and private modes, which do not change the text.
_UP, _ERASE, _MODES = "\x1b[1A", "\x1b[2K", re.compile(r"\x1b\[\?\d+[hl]")


def final_lines(printed: str) -> list[str]:
    """Return the lines that a terminal shows after all output, with their colours."""
    lines = [""]
    for part in re.split(rf"({re.escape(_UP)}|{re.escape(_ERASE)}|\r|\n)", _MODES.sub("", printed)):
        match part:
            case "\n":
                lines.append("")
            case "\x1b[1A":
                lines.pop()
            case "\x1b[2K" | "\r":
                lines[-1] = ""
            case _:
                lines[-1] += part
    return lines


def svg_of(printed: str) -> str:
    """Return the SVG of a terminal after a demo, without the demo's last table."""
    lines = ["$ outhaul demo", *final_lines(printed.partition("By carrier")[0])]
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi("\n".join(lines).rstrip()))
    # Use installed fonts: a picture in a README must not load a web font.
    svg = console.export_svg(title="outhaul", theme=MONOKAI, unique_id="demo")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code", "ui-monospace, Menlo, Consolas")


def demo() -> str:
    """Run the demo; return what it printed.

    Raises:
        subprocess.CalledProcessError: the demo failed.
    """
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(_WIDTH)}
    command = [sys.executable, "-m", "outhaul", "demo"]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    TARGET.write_text(svg_of(demo()))
    sys.stdout.write(f"{TARGET}\n")
