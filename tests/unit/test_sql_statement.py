"""The statement reader of the embedded ClickHouse front: what is data, what is a clause, what is only text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outhaul.deploy.local.clickhouse_http.sql_statement import DataInsert, Plain, StatementError, read_statement
from outhaul.deploy.local.clickhouse_http.sql_tokens import Kind, tokens

PATH = "/proc/self/fd/9"


def insert(text: bytes) -> tuple[str, bytes]:
    """Return the statement as the engine gets it, and the data."""
    statement = read_statement(text, whole=True)
    assert isinstance(statement, DataInsert), statement
    return re.sub(r"\s+", " ", statement.with_path(PATH).decode()).strip(), text[statement.data_from :]


def plain(text: bytes) -> Plain:
    statement = read_statement(text, whole=True)
    assert isinstance(statement, Plain), statement
    return statement


@pytest.mark.parametrize(
    ("text", "asked", "data"),
    [
        (b"INSERT INTO t FORMAT CSV\n1,2\n", "INSERT INTO t FROM INFILE '/proc/self/fd/9' FORMAT CSV", b"1,2\n"),
        (b"insert t format TSV 1\t2", "insert t FROM INFILE '/proc/self/fd/9' FORMAT TSV", b"1\t2"),
        (b"INSERT INTO t FORMAT CSV\r\n1", "INSERT INTO t FROM INFILE '/proc/self/fd/9' FORMAT CSV", b"1"),
        (b"INSERT INTO t FORMAT CSV \t\n\n1", "INSERT INTO t FROM INFILE '/proc/self/fd/9' FORMAT CSV", b"\n1"),
        (b"INSERT INTO t VALUES (1, 'a')", "INSERT INTO t FROM INFILE '/proc/self/fd/9' FORMAT Values", b" (1, 'a')"),
        (b"INSERT INTO t (a,b)VALUES(1)", "INSERT INTO t (a,b) FROM INFILE '/proc/self/fd/9' FORMAT Values", b"(1)"),
        (
            b"INSERT INTO db.values VALUES(1)",
            "INSERT INTO db.values FROM INFILE '/proc/self/fd/9' FORMAT Values",
            b"(1)",
        ),
        (
            b"INSERT INTO TABLE `for mat` (`FORMAT`) SETTINGS async_insert=0, x='FORMAT y' FORMAT Native\n\x00",
            (
                "INSERT INTO TABLE `for mat` (`FORMAT`) FROM INFILE '/proc/self/fd/9' "
                "SETTINGS async_insert=0, x='FORMAT y' FORMAT Native"
            ),
            b"\x00",
        ),
        (
            b"INSERT INTO FUNCTION file('x', 'CSV', 'format String') FORMAT CSV\n1",
            "INSERT INTO FUNCTION file('x', 'CSV', 'format String') FROM INFILE '/proc/self/fd/9' FORMAT CSV",
            b"1",
        ),
        (
            b"INSERT /* FORMAT a /* nested */ */ INTO t -- FORMAT b\n # VALUES\nFORMAT CSV\n1",
            "INSERT /* FORMAT a /* nested */ */ INTO t -- FORMAT b # VALUES FROM INFILE '/proc/self/fd/9' FORMAT CSV",
            b"1",
        ),
    ],
)
def test_data_of_an_insert_is_read_from_a_file(text: bytes, asked: str, data: bytes) -> None:
    assert insert(text) == (asked, data)


PRODUCT = b"""-- A batch, once; FORMAT is not here.
INSERT INTO event_log (id, event_context)
SELECT id, coalesce(event_context, 'FROM input(x) FORMAT y')
FROM input('id Int64, event_context String')
WHERE throwIf((SELECT max(epoch) FROM epochs WHERE source = {source:String}) > {epoch:UInt64}, 'fenced') = 0
  AND (id) NOT IN (SELECT id FROM event_log)
FORMAT ArrowStream"""


def test_insert_select_from_input_reads_a_file_of_that_structure() -> None:
    asked, data = insert(PRODUCT + b"\n\xff\xff\xff\xff'/*")
    assert "FROM file('/proc/self/fd/9', 'ArrowStream', 'id Int64, event_context String') WHERE" in asked
    assert "'FROM input(x) FORMAT y'" in asked
    assert asked.endswith("NOT IN (SELECT id FROM event_log)")
    assert data == b"\xff\xff\xff\xff'/*"


def test_input_in_a_subquery_is_found() -> None:
    asked, _ = insert(b"INSERT INTO t WITH 1 AS x SELECT * FROM (SELECT a FROM input($$a Int64$$)) FORMAT CSV\n1")
    assert asked.endswith("FROM (SELECT a FROM file('/proc/self/fd/9', 'CSV', $$a Int64$$))")


def test_settings_behind_the_select_stay() -> None:
    asked, _ = insert(b"INSERT INTO t SELECT a FROM input('a Int64') SETTINGS max_threads = 1 FORMAT CSV\n1")
    assert asked.endswith("file('/proc/self/fd/9', 'CSV', 'a Int64') SETTINGS max_threads = 1")


@pytest.mark.parametrize(
    "text",
    [
        b"INSERT INTO t SELECT 1",
        b"INSERT INTO t SELECT 'FROM input(1) FORMAT CSV'",
        b"INSERT INTO t SELECT input, format('{}', 1), 2 AS format FROM u",
        b"INSERT INTO t (SELECT 1)",
        b"INSERT INTO t SELECT * FROM u FORMAT Null",
        b"INSERT",
        b"INSERT INTO t SELECT 'open",
        b"CREATE TABLE insert (a Int64) ENGINE = Memory",
    ],
)
def test_statements_without_data_stay_as_they_are(text: bytes) -> None:
    assert plain(text).text == text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"SELECT 1", None),
        (b"SELECT 1 FORMAT JSON", "JSON"),
        (b"SELECT 1 format JSON SETTINGS max_threads = 1", "JSON"),
        (b"SELECT 1 SETTINGS max_threads = 1 FORMAT JSON;", "JSON"),
        (b"SELECT 1 FORMAT JSON -- FORMAT CSV", "JSON"),
        (b"SELECT 'FORMAT JSON'", None),
        (b"SELECT a AS format FROM (SELECT 1 AS a FORMAT CSV)", None),
        (b"SELECT format FROM t", None),
        (b"(SELECT 1) UNION ALL (SELECT 2) FORMAT CSV", "CSV"),
        (b"SHOW TABLES FORMAT TSV", "TSV"),
    ],
)
def test_the_format_clause_is_found_where_it_is_one(text: bytes, name: str | None) -> None:
    assert plain(text).format == name


@pytest.mark.parametrize(
    ("text", "selects"),
    [
        (b"SELECT 1", True),
        (b"/* x */ with 1 as a select a", True),
        (b"(SELECT 1) UNION ALL SELECT 2", True),
        (b"DROP TABLE t", False),
        (b"SHOW TABLES", False),
        (b"EXPLAIN SELECT 1", False),
    ],
)
def test_what_only_selects_is_told_apart(text: bytes, selects: bool) -> None:
    assert plain(text).selects is selects


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"SELECT 1; SELECT 2", 62),
        (b"", 62),
        (b" -- nothing\n", 62),
        (b"SELECT 1 INTO OUTFILE 'x'", 358),
        (b"INSERT INTO t FROM INFILE '/etc/passwd' FORMAT CSV", 78),
        (b"INSERT INTO t SELECT * FROM input('a Int64') JOIN input('b Int64') FORMAT CSV\n", 48),
        (b"INSERT INTO t SELECT * FROM input() FORMAT CSV\n", 48),
    ],
)
def test_what_a_server_refuses_is_refused_with_its_code(text: bytes, code: int) -> None:
    with pytest.raises(StatementError) as caught:
        read_statement(text, whole=True)
    assert caught.value.code == code


@pytest.mark.parametrize("text", [b"SELECT 1;", b"SELECT ';'; -- ;", b"SELECT 1;;"])
def test_semicolons_may_end_a_statement(text: bytes) -> None:
    assert plain(text).text == text


@given(cut=st.integers(0, len(PRODUCT) + 3))
def test_a_beginning_is_never_taken_for_another_statement(cut: int) -> None:
    whole = PRODUCT + b"\nabc"
    statement = read_statement(whole[:cut], whole=False)
    expected = read_statement(whole, whole=True)
    assert statement is None or statement == expected


DATA_HEADS = st.sampled_from([b"INSERT INTO t FORMAT CSV\n", b"INSERT INTO t VALUES", PRODUCT + b"\n"])


@given(head=DATA_HEADS, data=st.binary(min_size=1))
def test_data_never_changes_the_statement(head: bytes, data: bytes) -> None:
    if head.endswith(b"VALUES"):
        # A name goes on as long as its letters do.
        data = b"(" + data
    statement = read_statement(head + data, whole=True)
    assert isinstance(statement, DataInsert)
    assert (head + data)[statement.data_from :] == data


@given(st.binary())
def test_tokens_cover_any_text_without_gaps(text: bytes) -> None:
    at = 0
    for token in tokens(text):
        assert token.start == at
        assert token.end > at
        at = token.end
    assert at == len(text)


@given(st.text())
def test_no_literal_hides_what_follows(value: str) -> None:
    literal = b"'" + value.replace("\\", "\\\\").replace("'", "''").encode() + b"'"
    kinds = [token.kind for token in tokens(b"SELECT " + literal + b" x") if token.kind is not Kind.BLANK]
    assert kinds == [Kind.WORD, Kind.QUOTED, Kind.WORD]
