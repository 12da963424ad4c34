"""First bytes of a request -> the statement for the engine, and where the data of an insert begins.

Pure. The embedded engine reads the data of an insert only from a file. So `INSERT ... FORMAT x` becomes `INSERT ...
FROM INFILE 'path' FORMAT x`, and `INSERT ... SELECT ... FROM input('structure') ... FORMAT x` becomes `INSERT ...
SELECT ... FROM file('path', x, 'structure') ...`. The text is split into ClickHouse's tokens, so the content of a
string, a quoted name or a comment is never taken for a clause.

Source: https://clickhouse.com/docs/sql-reference/statements/insert-into
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from outhaul.deploy.local.clickhouse_http.sql_tokens import Kind, Token, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

SYNTAX_ERROR = 62
NOT_IMPLEMENTED = 48
UNKNOWN_TYPE_OF_QUERY = 78
INTO_OUTFILE_NOT_ALLOWED = 358


class StatementError(Exception):
    """The statement is refused before the engine gets it, with ClickHouse's code for this error."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {message}. ({name})")
        self.code = code


@dataclass(frozen=True, slots=True)
class Plain:
    """A statement that the engine gets unchanged; `format` is the name in its FORMAT clause."""

    text: bytes
    format: str | None
    selects: bool


@dataclass(frozen=True, slots=True)
class DataInsert:
    """An insert whose data begins at byte `data_from`; the path of its file goes between `before` and `after`."""

    before: bytes
    after: bytes
    format: str
    data_from: int

    def with_path(self, path: str) -> bytes:
        """Return the statement that reads the data from this file."""
        return self.before + b"'" + path.replace("\\", "\\\\").replace("'", "\\'").encode() + b"'" + self.after


def read_statement(text: bytes, *, whole: bool) -> Plain | DataInsert | None:
    """Parse a statement.

    Args:
        text: the beginning of the statement and, for an insert, of its data.
        whole: whether `text` is complete.

    Returns:
        The statement, or None if more of the text is needed.

    Raises:
        StatementError: a ClickHouse server refuses the statement over HTTP, or the embedded engine does not support it.
    """
    reader = _Reader(text)
    try:
        insert = _insert(reader) if reader.skip_word("INSERT") else None
    except _EndOfTextError:
        insert = None
        if not whole:
            return None
    if insert is not None and (whole or insert.data_from < len(text)):
        return insert
    if not whole:
        return None
    return _plain(text)


class _EndOfTextError(Exception):
    pass


class _Reader:
    """The tokens of a text without blanks, read one ahead; it does not read on into the data after a FORMAT clause."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self._rest: Iterator[Token] = (token for token in tokens(text) if token.kind is not Kind.BLANK)
        self.current = next(self._rest, None)

    def word(self) -> str:
        """Return the current word in upper case; an empty text if the current token is not a word."""
        token = self.current
        if token is None or token.kind is not Kind.WORD:
            return ""
        return self.text[token.start : token.end].decode(errors="replace").upper()

    def is_mark(self, mark: bytes) -> bool:
        """Return whether the current token is this punctuation mark."""
        token = self.current
        return token is not None and token.kind is Kind.MARK and self.text[token.start : token.end] == mark

    def skip_word(self, *words: str) -> bool:
        """Advance past the current token if it is one of these words; return whether it was."""
        found = self.word() in words
        if found:
            self.advance()
        return found

    def advance(self) -> Token:
        """Return the current token and advance to the next one.

        Raises:
            _EndOfTextError: the text has no more complete tokens.
        """
        token = self.current
        if token is None or token.kind is Kind.OPEN:
            raise _EndOfTextError
        self.current = next(self._rest, None)
        return token

    def skip_group(self) -> tuple[Token, Token]:
        """Advance past a group in parentheses; return the two parentheses."""
        first, depth = self.advance(), 1
        while True:
            depth += self.is_mark(b"(") - self.is_mark(b")")
            last = self.advance()
            if depth == 0:
                return first, last


def _insert(reader: _Reader) -> DataInsert:
    """Parse an INSERT, after the word INSERT.

    Raises:
        _EndOfTextError: the statement has no data, or the text ends inside the statement.
    """
    reader.skip_word("INTO")
    reader.skip_word("TABLE")
    if reader.skip_word("FUNCTION"):
        reader.advance()
    else:
        reader.advance()
        while reader.is_mark(b"."):
            reader.advance()
            reader.advance()
    place: int | None = None
    while True:
        if reader.is_mark(b"("):
            reader.skip_group()
            continue
        if reader.word() in {"SELECT", "WITH"}:
            return _insert_select(reader)
        token = reader.advance()
        match reader.text[token.start : token.end].upper() if token.kind is Kind.WORD else b"":
            case b"SETTINGS":
                place = token.start if place is None else place
            case b"FROM" if reader.word() == "INFILE":
                raise StatementError(
                    UNKNOWN_TYPE_OF_QUERY, "UNKNOWN_TYPE_OF_QUERY", "Query has infile and was send directly to server"
                )
            case b"VALUES":
                return _from_infile(reader.text, token, token.start if place is None else place, "Values", token.end)
            case b"FORMAT":
                name = reader.advance()
                place = token.start if place is None else place
                return _from_infile(
                    reader.text, token, place, _text(reader.text, name), _data_from(reader.text, name.end)
                )


def _from_infile(text: bytes, clause: Token, place: int, name: str, data_from: int) -> DataInsert:
    after = b" " + text[place : clause.start] + b" FORMAT " + name.encode()
    return DataInsert(text[:place] + b" FROM INFILE ", after, name, data_from)


def _insert_select(reader: _Reader) -> DataInsert:
    """Find `input(structure)` after FROM or JOIN, and the FORMAT clause at the end of the statement.

    Raises:
        _EndOfTextError: one of the two is missing.
    """
    text, before, depth = reader.text, "", 0
    call: tuple[int, bytes, int] | None = None
    while True:
        word = reader.word()
        depth += reader.is_mark(b"(") - reader.is_mark(b")")
        token = reader.advance()
        if word == "INPUT" and before in {"FROM", "JOIN"} and reader.is_mark(b"("):
            if call is not None:
                raise _not_implemented("The embedded engine supports one input() in a statement")
            first, last = reader.skip_group()
            call = token.start, text[first.end : last.start].strip(), last.end
            if not call[1]:
                raise _not_implemented("The embedded engine needs input() with a structure")
        elif word == "FORMAT" and call is not None and depth == 0 and reader.word() and before != "AS":
            name = reader.advance()
            start, structure, end = call
            after = f", '{_text(text, name)}', ".encode() + structure + b")" + text[end : token.start]
            return DataInsert(text[:start] + b"file(", after, _text(text, name), _data_from(text, name.end))
        before = word


def _not_implemented(message: str) -> StatementError:
    return StatementError(NOT_IMPLEMENTED, "NOT_IMPLEMENTED", message)


def _text(text: bytes, token: Token) -> str:
    return text[token.start : token.end].decode(errors="replace")


def _data_from(text: bytes, end: int) -> int:
    """Return where data starts: after blanks and one line break, each of which may be missing."""
    while text[end : end + 1] in {b" ", b"\t", b"\f"}:
        end += 1
    if text[end : end + 1] == b"\r":
        end += 1
    return end + 1 if text[end : end + 1] == b"\n" else end


def _plain(text: bytes) -> Plain:
    words: list[str] = []
    depth = 0
    ended = False
    for token in tokens(text):
        if token.kind is Kind.BLANK:
            continue
        mark = text[token.start : token.end]
        if token.kind is Kind.MARK:
            depth += mark in {b"(", b"["}
            depth -= mark in {b")", b"]"}
        if mark == b";" and depth == 0:
            ended = True
        elif ended:
            raise StatementError(SYNTAX_ERROR, "SYNTAX_ERROR", "Syntax error (Multi-statements are not allowed)")
        elif depth == 0:
            words.append(mark.decode(errors="replace") if token.kind is Kind.WORD else "")
    if ("INTO", "OUTFILE") in pairwise(word.upper() for word in words):
        raise StatementError(INTO_OUTFILE_NOT_ALLOWED, "INTO_OUTFILE_NOT_ALLOWED", "INTO OUTFILE is not allowed")
    if not words and not ended and depth == 0:
        raise StatementError(SYNTAX_ERROR, "SYNTAX_ERROR", "Syntax error: Empty query")
    # In a statement such as `(SELECT ...) UNION ALL ...`, SELECT is inside parentheses and so not in `words`.
    return Plain(text, _format(words), selects=not words or words[0].upper() in {"SELECT", "WITH", ""})


def _format(words: list[str]) -> str | None:
    """Return the name in the FORMAT clause, which is at the end of the statement or before a SETTINGS clause."""
    last = max((at for at, word in enumerate(words) if word.upper() == "SETTINGS"), default=len(words))
    for end in (len(words), last):
        if end > 2 and words[end - 2].upper() == "FORMAT" and words[end - 1]:  # noqa: PLR2004 - name, clause, one before
            return words[end - 1]
    return None
