"""First bytes of a request -> which statement it is, where its data begins, and how the engine is to be asked.

Pure. The embedded engine takes an insert's data from a file only: `INSERT ... FORMAT x` becomes `INSERT ... FROM
INFILE 'path' FORMAT x`, and `INSERT ... SELECT ... FROM input('structure') ... FORMAT x` reads `file('path', x,
'structure')` instead. Tokens are ClickHouse's own, so nothing inside a string, a quoted name or a comment is ever
taken for a clause.

Source: https://clickhouse.com/docs/sql-reference/statements/insert-into
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from outhaul.deploy.local.front.sql_tokens import Kind, Token, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

SYNTAX_ERROR = 62
NOT_IMPLEMENTED = 48
UNKNOWN_TYPE_OF_QUERY = 78
INTO_OUTFILE_NOT_ALLOWED = 358


class StatementError(Exception):
    """The statement is refused before the engine sees it, with ClickHouse's code for it."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {message}. ({name})")
        self.code = code


@dataclass(frozen=True, slots=True)
class Plain:
    """A statement that goes to the engine as it is; `format` is its own FORMAT clause."""

    text: bytes
    format: str | None
    selects: bool


@dataclass(frozen=True, slots=True)
class DataInsert:
    """An insert whose data begins at `data_from`; `before` and `after` stand around the place where the path goes."""

    before: bytes
    after: bytes
    format: str
    data_from: int

    def reading(self, path: str) -> bytes:
        """Return the statement that reads the data from this file."""
        return self.before + b"'" + path.replace("\\", "\\\\").replace("'", "\\'").encode() + b"'" + self.after


def read_statement(text: bytes, *, whole: bool) -> Plain | DataInsert | None:
    """Tell what the text is.

    Args:
        text: the statement's beginning, with the beginning of the data where there is some.
        whole: nothing follows `text`.

    Returns:
        The statement, or None where more of it must be read to tell.

    Raises:
        StatementError: a form that a ClickHouse server refuses over HTTP, or one that cannot be given to the engine.
    """
    reader = _Reader(text)
    try:
        insert = _insert(reader) if reader.take("INSERT") else None
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
    """The significant tokens of a text, one ahead; never runs into the data behind a FORMAT clause."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self._rest: Iterator[Token] = (token for token in tokens(text) if token.kind is not Kind.BLANK)
        self.now = next(self._rest, None)

    def word(self) -> str:
        """Return the word at hand in upper case, or nothing."""
        token = self.now
        return (
            self.text[token.start : token.end].decode(errors="replace").upper()
            if token and token.kind is Kind.WORD
            else ""
        )

    def is_(self, mark: bytes) -> bool:
        """Tell whether this punctuation is at hand."""
        token = self.now
        return token is not None and token.kind is Kind.MARK and self.text[token.start : token.end] == mark

    def take(self, *words: str) -> bool:
        """Pass one of these words, if it is at hand."""
        found = self.word() in words
        if found:
            self.pass_()
        return found

    def pass_(self) -> Token:
        """Go on by one token.

        Raises:
            _EndOfTextError: there is none.
        """
        token = self.now
        if token is None or token.kind is Kind.OPEN:
            raise _EndOfTextError
        self.now = next(self._rest, None)
        return token

    def pass_group(self) -> tuple[Token, Token]:
        """Pass a bracketed group; return its two brackets."""
        first, depth = self.pass_(), 1
        while True:
            depth += self.is_(b"(") - self.is_(b")")
            last = self.pass_()
            if depth == 0:
                return first, last


def _insert(reader: _Reader) -> DataInsert:
    """Read an INSERT from behind that word.

    Raises:
        _EndOfTextError: it has no data, or the text is not all of it.
    """
    reader.take("INTO")
    reader.take("TABLE")
    if reader.take("FUNCTION"):
        reader.pass_()
    else:
        reader.pass_()
        while reader.is_(b"."):
            reader.pass_()
            reader.pass_()
    place: int | None = None
    while True:
        if reader.is_(b"("):
            reader.pass_group()
            continue
        if reader.word() in {"SELECT", "WITH"}:
            return _insert_select(reader)
        token = reader.pass_()
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
                name = reader.pass_()
                place = token.start if place is None else place
                return _from_infile(
                    reader.text, token, place, _text(reader.text, name), _data_from(reader.text, name.end)
                )


def _from_infile(text: bytes, clause: Token, place: int, name: str, data_from: int) -> DataInsert:
    after = b" " + text[place : clause.start] + b" FORMAT " + name.encode()
    return DataInsert(text[:place] + b" FROM INFILE ", after, name, data_from)


def _insert_select(reader: _Reader) -> DataInsert:
    """Find `input(structure)` after FROM or JOIN, and the FORMAT clause behind it that ends the statement.

    Raises:
        _EndOfTextError: they are not there.
    """
    text, before, depth = reader.text, "", 0
    call: tuple[int, bytes, int] | None = None
    while True:
        word = reader.word()
        depth += reader.is_(b"(") - reader.is_(b")")
        token = reader.pass_()
        if word == "INPUT" and before in {"FROM", "JOIN"} and reader.is_(b"("):
            if call is not None:
                raise _unable("The embedded engine reads input() once a statement")
            first, last = reader.pass_group()
            call = token.start, text[first.end : last.start].strip(), last.end
            if not call[1]:
                raise _unable("The embedded engine needs input() with a structure")
        elif word == "FORMAT" and call is not None and depth == 0 and reader.word() and before != "AS":
            name = reader.pass_()
            start, structure, end = call
            after = f", '{_text(text, name)}', ".encode() + structure + b")" + text[end : token.start]
            return DataInsert(text[:start] + b"file(", after, _text(text, name), _data_from(text, name.end))
        before = word


def _unable(message: str) -> StatementError:
    return StatementError(NOT_IMPLEMENTED, "NOT_IMPLEMENTED", message)


def _text(text: bytes, token: Token) -> str:
    return text[token.start : token.end].decode(errors="replace")


def _data_from(text: bytes, end: int) -> int:
    """Data starts behind the first line break, or behind the blanks where there is none."""
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
    # A statement in brackets, `(SELECT ...) UNION ALL ...`, has its words one level down.
    return Plain(text, _format(words), selects=not words or words[0].upper() in {"SELECT", "WITH", ""})


def _format(words: list[str]) -> str | None:
    """Return the FORMAT clause's name: it ends the statement, or SETTINGS come behind it."""
    last = max((at for at, word in enumerate(words) if word.upper() == "SETTINGS"), default=len(words))
    for end in (len(words), last):
        if end > 2 and words[end - 2].upper() == "FORMAT" and words[end - 1]:  # noqa: PLR2004 - name, clause, one before
            return words[end - 1]
    return None
