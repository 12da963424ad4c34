"""Text of a ClickHouse statement -> its tokens, one at a time.

Pure. It recognizes comments (block comments nest), strings with backslashes and doubled quotes, quoted names,
here-documents and typographic quotes. If the text ends inside a token, the token is OPEN: the text is incomplete or
invalid.

Source: https://clickhouse.com/docs/sql-reference/syntax
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Kind(Enum):
    """The kind of a token."""

    BLANK = "white space or a comment"
    WORD = "keyword, bare name or number"
    QUOTED = "string, quoted name or here-document"
    MARK = "one character of punctuation"
    OPEN = "a comment or quote without its end"


@dataclass(frozen=True, slots=True)
class Token:
    """A part of the text, from byte `start` to before byte `end`."""

    kind: Kind
    start: int
    end: int


_BLANK = re.compile(rb"(?:\s+|--[^\n]*(?:\n|\Z)|#[ !][^\n]*(?:\n|\Z))+")
_COMMENT_EDGE = re.compile(rb"/\*|\*/")
_NOT_A_QUOTE = rb"(?!\xe2\x80[\x98\x99\x9c\x9d])"
_WORD = re.compile(
    rb"(?:[A-Za-z0-9_]|" + _NOT_A_QUOTE + rb"[\x80-\xff])(?:[A-Za-z0-9_$]|" + _NOT_A_QUOTE + rb"[\x80-\xff])*"
)
_HEREDOC = re.compile(rb"\$[A-Za-z0-9_]*\$")
_QUOTED = {
    ord("'"): re.compile(rb"'(?:[^'\\]|\\.|'')*+'", re.DOTALL),
    ord('"'): re.compile(rb'"(?:[^"\\]|\\.|"")*+"', re.DOTALL),
    ord("`"): re.compile(rb"`(?:[^`\\]|\\.|``)*+`", re.DOTALL),
}
_TYPOGRAPHIC = {b"\xe2\x80\x98": b"\xe2\x80\x99", b"\xe2\x80\x9c": b"\xe2\x80\x9d"}


def tokens(text: bytes) -> Iterator[Token]:
    """Yield the tokens of a text. The caller stops at the end of a statement, so the data after it is not split."""
    at = 0
    while at < len(text):
        token = _token(text, at)
        yield token
        at = token.end


def _token(text: bytes, at: int) -> Token:
    first = text[at]
    if found := _BLANK.match(text, at):
        return Token(Kind.BLANK, at, found.end())
    if text.startswith(b"/*", at):
        return _comment(text, at)
    if first in _QUOTED:
        found = _QUOTED[first].match(text, at)
        return Token(Kind.QUOTED, at, found.end()) if found else Token(Kind.OPEN, at, len(text))
    if found := _HEREDOC.match(text, at):
        return _until(text, at, found.end(), found.group())
    if closing := _TYPOGRAPHIC.get(text[at : at + 3]):
        return _until(text, at, at + 3, closing)
    if found := _WORD.match(text, at):
        return Token(Kind.WORD, at, found.end())
    return Token(Kind.MARK, at, at + 1)


def _comment(text: bytes, at: int) -> Token:
    depth = 0
    for edge in _COMMENT_EDGE.finditer(text, at):
        depth += 1 if edge.group() == b"/*" else -1
        if depth == 0:
            return Token(Kind.BLANK, at, edge.end())
    return Token(Kind.OPEN, at, len(text))


def _until(text: bytes, at: int, inside: int, closing: bytes) -> Token:
    end = text.find(closing, inside)
    return Token(Kind.OPEN, at, len(text)) if end < 0 else Token(Kind.QUOTED, at, end + len(closing))
