"""The settings of a statement stand in its SETTINGS clause, where each kind of statement has it."""

import pytest

from outhaul.sink import settings_clause
from outhaul.sink.pinned_settings import PINNED, TOKEN, On, pinned
from outhaul.sink.settings_clause import with_settings, without_clauses

KNOWN = frozenset({"final", "async_insert", "log_comment", "max_threads", "mutations_sync"})


def test_every_pinned_setting_is_there_once_and_says_why() -> None:
    for kind in On:
        names = [one.name for one in PINNED if one.on & kind]
        assert len(names) == len(set(names))
    assert all(one.why for one in PINNED)


@pytest.mark.parametrize(
    ("statement", "given", "text"),
    [
        ("SELECT 1", {}, "SELECT 1\nSETTINGS final=0"),
        ("SELECT 1;\n", {"max_threads": 2}, "SELECT 1\nSETTINGS final=0,max_threads=2"),
        ("WITH 1 AS a SELECT a", {"final": 1}, "WITH 1 AS a SELECT a\nSETTINGS final=1"),
        ("(SELECT 1) UNION ALL (SELECT 2)", {}, "(SELECT 1) UNION ALL (SELECT 2)\nSETTINGS final=0"),
        ("SELECT 1 SETTINGS log_comment = 'a, b'", {}, "SELECT 1 SETTINGS log_comment = 'a, b', final=0"),
        ("SELECT 1 SETTINGS final = 1, max_threads = 2", {}, "SELECT 1 SETTINGS final = 1, max_threads = 2"),
        ("SELECT 'SETTINGS a = 1'", {}, "SELECT 'SETTINGS a = 1'\nSETTINGS final=0"),
        (
            "SELECT a FROM (SELECT 1 AS a SETTINGS final = 1)",
            {},
            "SELECT a FROM (SELECT 1 AS a SETTINGS final = 1)\nSETTINGS final=0",
        ),
        ("-- why\nselect 1", {}, "-- why\nselect 1\nSETTINGS final=0"),
        (
            "INSERT INTO `t` (`a (`, `b \\``)\nSELECT 1, 2",
            {},
            "INSERT INTO `t` (`a (`, `b \\``) SETTINGS final=0,async_insert=0\nSELECT 1, 2",
        ),
        (
            "INSERT INTO FUNCTION null('a Int8') (a) SELECT 1",
            {},
            "INSERT INTO FUNCTION null('a Int8') (a) SETTINGS final=0,async_insert=0\nSELECT 1",
        ),
        ("INSERT INTO d.t VALUES (1)", {}, "INSERT INTO d.t SETTINGS final=0,async_insert=0\nVALUES (1)"),
        (
            "INSERT INTO t (a) SETTINGS final = 1 VALUES (1)",
            {"log_comment": "x'y"},
            "INSERT INTO t (a) SETTINGS final=0,async_insert=0,log_comment='x\\'y', final = 1 VALUES (1)",
        ),
        (
            "ALTER TABLE t DELETE WHERE a",
            {"mutations_sync": 2},
            "ALTER TABLE t DELETE WHERE a\nSETTINGS mutations_sync=2",
        ),
        ("ALTER TABLE t ADD COLUMN a Int8", {}, "ALTER TABLE t ADD COLUMN a Int8"),
    ],
)
def test_the_clause_stands_where_the_statement_has_it(statement: str, given: dict[str, object], text: str) -> None:
    assert with_settings(statement, given, KNOWN) == (text, {})


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE t (a Int8) ENGINE = Memory", "SYSTEM STOP MERGES t", "EXISTS TABLE t"]
)
def test_settings_of_a_statement_without_a_clause_are_for_the_url(statement: str) -> None:
    assert with_settings(statement, {"max_threads": 1, "nope": 1}, KNOWN) == (statement, {"max_threads": 1})


def test_what_the_server_does_not_list_is_left_out() -> None:
    text, _ = with_settings("SELECT 1", {"new_name": 1, "wait_end_of_query": 1}, frozenset({"wait_end_of_query"}))
    assert text == "SELECT 1"


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "1"), (7, "7"), (0.5, "0.5"), ("a'b\\", "'a\\'b\\\\'"), ({"d.t": "a = 'x'"}, "{'d.t':'a = \\'x\\''}")],
)
def test_values_are_written_as_clickhouse_reads_them(value: object, text: str) -> None:
    assert with_settings("SELECT 1", {"max_threads": value}, frozenset({"max_threads"}))[0].endswith(
        f"max_threads={text}"
    )


def test_an_insert_with_a_token_must_be_deduplicated() -> None:
    assert "deduplicate_insert_select" not in pinned(On.INSERT, {})
    assert pinned(On.INSERT, {TOKEN: "t"})["deduplicate_insert_select"] == "force_enable"
    assert (
        pinned(On.INSERT, {TOKEN: "t", "materialized_views_ignore_errors": 1})["materialized_views_ignore_errors"] == 1
    )


def test_a_message_that_quotes_a_statement_does_not_quote_its_settings() -> None:
    text, _ = with_settings("SELECT nope", {}, frozenset(one.name for one in PINNED))
    for quoted in (text, text.replace("=", " = ").replace(",", ", ").replace("\n", " ")):
        message = f"Unknown expression identifier `nope` in scope {quoted}. (UNKNOWN_IDENTIFIER)"
        assert without_clauses(message) == (
            "Unknown expression identifier `nope` in scope SELECT nope. (UNKNOWN_IDENTIFIER)"
        )
    assert without_clauses("SELECT 1 SETTINGS a = 1") == "SELECT 1 SETTINGS a = 1"


def test_an_insert_of_another_form_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="form"):
        settings_clause.with_settings("INSERT INTO (a) SELECT 1", {}, KNOWN)
