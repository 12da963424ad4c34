"""A text -> the phrases in it that a reader has to read twice. Pure.

Run as a script, it lists them in the files that are named, or in all files of the checkout:
`python tests/unit/phrases.py docs/operations.md`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Each phrase with what to write in its place.
PHRASES = {
    r"\b(?:is|are|was|were) (?-i:none)\b": "say what is missing: 'no X exists', 'X is not set'",
    r"\b(?:there (?:is|are) (?-i:none)|(?-i:none) (?:is|are))\b": "name what is missing",
    r"\b(?:stands?|stood) on none\b": "name the thing: 'no log line contains …'",
    r"\bof ours\b": "'outhaul's', or leave it out",
    r"\bwhoever\b": "say who: 'the reader', 'any client'",
    r"\banew\b": "'again', 'a new …'",
    r"\bwhere there (?:is|are) (?:one|any|some)\b": "'if X exists', 'if X is set'",
    r"\bso many\b": "give the number or its name: 'at most N', 'that many'",
    r"\b(?:goes|go|went|going) well\b": "say what works: 'succeeds', 'the disk has room'",
    r"\bis no event\b": "'is ignored', 'is not an event'",
    r"\breach(?:es)? nobody\b": "'is not replicated', 'is not delivered'",
    r"\bit is news\b": "'it is reported again'",
    r"\bnobody is there\b": "'stdin is not a terminal'",
    r"\bhas a word\b": "name the data and its reader",
    r"\b(?:reader|worker|watchdog|operator|server|sink|ClickHouse|Redis)'s (?:own )?word\b": "'report', 'state'",
    r"\b(?:says?|said|tells?|told|hears?|heard) of\b": "'reports', 'describes'",
    r"\b(?:is|are|was|were) heard\b": "'is received', 'has been received'",
    r"\bwithout a word\b": "'silently', 'without an error'",
    r"\bheed(?:s|ed)?\b": "'obeys', 'applies'",
    r"\bfor ever\b": "'forever', 'without end'",
    r"\bnot said\b": "'not given'",
    r"\bat rest\b": "'finished', 'idle'",
    r"\bthe deed\b": "'the change'",
    r"\bset (?:it |them )?right\b": "'fix'",
    r"\bis (?:run|read|typed|written) by nobody\b": "say what does not happen",
}
# A phrase may go on in the next line of a text, a comment or a string.
_GAP = r"""(?:\s+(?:#|--)?\s*|\s*"\s+f?"\s*)"""
_ALL = re.compile("|".join(f"({pattern.replace(' ', _GAP)})" for pattern in PHRASES), re.IGNORECASE)

SUFFIXES = {".py", ".md", ".sql", ".yml", ".yaml", ".toml", ".service", ".timer", ".sh", ""}
# The list itself, its test, and texts of others.
EXEMPT = {"tests/unit/phrases.py", "tests/unit/test_english.py", "LICENSE", "requirements.lock"}


def found_in(text: str) -> list[tuple[int, str, str]]:
    """Return the number of each line with a listed phrase, from 1, the phrase, and what to write in its place."""
    hints = list(PHRASES.values())
    return [
        (text.count("\n", 0, match.start()) + 1, match[0], hints[(match.lastindex or 1) - 1])
        for match in _ALL.finditer(text)
    ]


def files() -> list[Path]:
    """Return every text file of the checkout that git knows, but for those that are exempt."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [
        ROOT / name
        for name in listed
        if name not in EXEMPT and (ROOT / name).suffix in SUFFIXES and (ROOT / name).is_file()
    ]


if __name__ == "__main__":
    chosen = [Path(name).resolve() for name in sys.argv[1:]]
    listed = [path for name in chosen for path in ([name] if name.is_file() else sorted(name.rglob("*")))] or files()
    for path in listed:
        if path.is_file() and path.suffix in SUFFIXES and path.relative_to(ROOT).as_posix() not in EXEMPT:
            for line, phrase, hint in found_in(path.read_text()):
                print(f"{path.relative_to(ROOT)}:{line}: {phrase!r}: {hint}")
