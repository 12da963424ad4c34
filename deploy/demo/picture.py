"""`python -m outhaul.deploy.demo.picture` -> docs/images/demo.svg: what a demo prints, as a terminal shows it in the
end.

Edge: runs the demo and writes the file. A bar that is drawn over itself is kept as it was last.
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

# What rich sends to draw anew: to the line above, or to the start of this one, and away with what is there.
_UP, _ANEW, _OTHER = "\x1b[1A", "\x1b[2K", re.compile(r"\x1b\[\?\d+[hl]")


def last_seen(printed: str) -> list[str]:
    """Return the lines that a terminal shows in the end, colours included."""
    lines = [""]
    for piece in re.split(rf"({re.escape(_UP)}|{re.escape(_ANEW)}|\r|\n)", _OTHER.sub("", printed)):
        match piece:
            case "\n":
                lines.append("")
            case "\x1b[1A":
                lines.pop()
            case "\x1b[2K" | "\r":
                lines[-1] = ""
            case _:
                lines[-1] += piece
    return lines


def drawn(printed: str) -> str:
    """Return the picture of a terminal after a demo, without its last table."""
    lines = ["$ outhaul demo", *last_seen(printed.partition("By carrier")[0])]
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi("\n".join(lines).rstrip()))
    # A font of the reader's own: a picture in a README must fetch nothing.
    svg = console.export_svg(title="outhaul", theme=MONOKAI, unique_id="demo")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code", "ui-monospace, Menlo, Consolas")


def demo() -> str:
    """Run the demo; return what it printed.

    Raises:
        subprocess.CalledProcessError: it found something missing.
    """
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(_WIDTH)}
    command = [sys.executable, "-m", "outhaul", "demo"]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    TARGET.write_text(drawn(demo()))
    sys.stdout.write(f"{TARGET}\n")
