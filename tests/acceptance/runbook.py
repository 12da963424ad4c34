"""A page of docs/runbooks -> its sections, and in order every line that an operator types, with what it should print.

Pure. A page may have two kinds of blocks: `console`, with `$ ` before what is typed, and `sql`, whose first line says
on which server. A comment `# exits 1` behind a command notes its exit code. What stands between is printed; numbers
other than 0 and positions in it are examples, and `…` is any text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
PAGES = sorted(path.stem for path in RUNBOOKS.glob("*.md") if path.stem != "README")
SECTIONS = ["What you see", "What it means", "Is anything lost?", "What to type", "How you know it worked"]

_EXITS = re.compile(r"\s+# exits (\d+)$")
_SERVERS = {"-- in Postgres": "Postgres", "-- in ClickHouse": "ClickHouse"}
_POSITION, _NUMBER = re.compile(r"[0-9A-F]+/[0-9A-F]+"), re.compile(r"\d[\d,.:]*")


@dataclass(slots=True)
class Step:
    """One line to type, or one statement; `where` is a shell, Postgres or ClickHouse."""

    section: str
    where: str
    text: str
    code: int = 0
    printed: list[str] = field(default_factory=list)

    @property
    def goes_on(self) -> bool:
        """Whether it is a process that an operator leaves running."""
        return self.text.endswith(" &")

    @property
    def only_looks(self) -> bool:
        """Whether it stands where an operator looks, and looks again."""
        return self.section in {SECTIONS[0], SECTIONS[-1]}


def sections(text: str) -> list[str]:
    """Return the headings of a page."""
    return re.findall(r"^## (.*)$", text, re.MULTILINE)


def steps(text: str) -> list[Step]:
    """Return what an operator types, in order.

    Raises:
        ValueError: a block is of another kind, or does not say on which server.
    """
    found: list[Step] = []
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        section, _, body = part.partition("\n")
        for kind, block in re.findall(r"^```(\w*)\n(.*?)^```$", body, re.MULTILINE | re.DOTALL):
            if kind == "console":
                found += _typed(section, block)
            elif kind == "sql":
                found += _statements(section, block)
            else:
                raise ValueError(f"no test runs a block of kind {kind!r}")
    return found


def _typed(section: str, block: str) -> list[Step]:
    found: list[Step] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            noted = _EXITS.search(line)
            text = re.sub(r"\s{2,}#.*$", "", _EXITS.sub("", line[2:]))
            found.append(Step(section, "shell", text, int(noted[1]) if noted else 0))
        elif line.strip():
            found[-1].printed.append(line)
    return found


def _statements(section: str, block: str) -> list[Step]:
    first, _, rest = block.partition("\n")
    if first not in _SERVERS:
        raise ValueError(f"{first!r} does not say on which server")
    statements = [text.strip() for text in re.split(r";\s*(?:--.*)?\n", rest)]
    return [Step(section, _SERVERS[first], text) for text in statements if text]


def is_printed(line: str, output: str) -> bool:
    """Tell whether an output has a line as the page shows it."""
    pattern = ".*".join(re.escape(_blank(part)) for part in line.strip().split("…"))
    return any(re.search(pattern, _blank(one)) for one in output.splitlines())


def _blank(text: str) -> str:
    """Make examples of numbers, but not of zero: `missing 0` is not `missing 7`."""
    text = _NUMBER.sub(lambda number: "9" if number[0].strip("0,.:") else "0", _POSITION.sub("9", text))
    return re.sub(r"\s+", " ", text)
