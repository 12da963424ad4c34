"""Text of a ClickHouse statement -> its tokens, one at a time.

Pure. It recognizes comments (block comments nest), strings with backslashes and doubled quotes, quoted names,
here-documents and typographic quotes. If the text ends inside a token, the token is OPEN: the text is incomplete or
invalid.

Source: https://clickhouse.com/docs/sql-reference/syntax
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Kind(Enum):
    """The kind of a token."""

    BLANK = "white space or a comment"
    WORD = "keyword, bare name or number"
    QUOTED = "string, quoted name or here-document"
    SETTINGS = "names and values after the word SETTINGS"
    MARK = "one character of punctuation"
    OPEN = "a comment or quote without its end"


class Token(NamedTuple):
    """A part of the text, from byte `start` to before byte `end`."""

    kind: Kind
    start: int
    end: int


_NOT_A_QUOTE = rb"(?!\xe2\x80[\x98\x99\x9c\x9d])"
# Kinds by the number of their group; one search for most tokens, since a statement has hundreds of them.
_COMMON = re.compile(
    rb"((?:\s+|--[^\n]*(?:\n|\Z)|#[ !][^\n]*(?:\n|\Z))+)"
    rb"|((?:[A-Za-z0-9_]|" + _NOT_A_QUOTE + rb"[\x80-\xff])(?:[A-Za-z0-9_$]|" + _NOT_A_QUOTE + rb"[\x80-\xff])*)"
    rb"|('(?:[^'\\]|\\.|'')*+'|\"(?:[^\"\\]|\\.|\"\")*+\"|`(?:[^`\\]|\\.|``)*+`)"
    rb"|([(),.=;:{}\[\]])",
    re.DOTALL,
)
_KINDS = (Kind.OPEN, Kind.BLANK, Kind.WORD, Kind.QUOTED, Kind.MARK)
# Statements of outhaul have dozens of settings, which one search skips.
_SETTING = rb"\s*\w+\s*=\s*(?:'(?:[^'\\]|\\.|'')*+'|[\w+-]+(?:\.\w+)*)"
_SETTINGS = re.compile(rb"(?<=SETTINGS)\s" + _SETTING + rb"(?:\s*," + _SETTING + rb")*+", re.DOTALL | re.IGNORECASE)
_COMMENT_EDGE = re.compile(rb"/\*|\*/")
_HEREDOC = re.compile(rb"\$[A-Za-z0-9_]*\$")
_QUOTES = b"'\"`"
_TYPOGRAPHIC = {b"\xe2\x80\x98": b"\xe2\x80\x99", b"\xe2\x80\x9c": b"\xe2\x80\x9d"}


def tokens(text: bytes) -> Iterator[Token]:
    """Yield the tokens of a text. The caller stops at the end of a statement, so the data after it is not split."""
    at = 0
    while at < len(text):
        found = _COMMON.match(text, at)
        token = Token(_KINDS[found.lastindex or 0], at, found.end()) if found else _rare(text, at)
        yield token
        at = token.end
        if token.kind is Kind.WORD and (list_ := _SETTINGS.match(text, at)):
            yield Token(Kind.SETTINGS, at, list_.end())
            at = list_.end()


def _rare(text: bytes, at: int) -> Token:
    if text.startswith(b"/*", at):
        return _comment(text, at)
    if text[at] in _QUOTES:
        return Token(Kind.OPEN, at, len(text))
    if found := _HEREDOC.match(text, at):
        return _until(text, at, found.end(), found.group())
    if closing := _TYPOGRAPHIC.get(text[at : at + 3]):
        return _until(text, at, at + 3, closing)
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
