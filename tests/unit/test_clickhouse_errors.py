"""ClickHouse's error codes and a proxy's statuses sort into wait, set aside and stop."""

import pickle

import pytest

from outhaul.sink import clickhouse_errors
from outhaul.sink.clickhouse_errors import POISON, TRANSIENT, error_of, error_of_status, is_thrown
from outhaul.sink.errors import Exit, FatalError, PipelineError, PoisonError, TooLargeError, TransientError


def test_the_tables_of_codes_do_not_overlap() -> None:
    fatal = clickhouse_errors._FATAL
    assert not TRANSIENT.keys() & POISON.keys()
    assert not fatal.keys() & (TRANSIENT.keys() | POISON.keys())


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [
        (None, TransientError, Exit.CLICKHOUSE_UNREACHABLE),
        (252, TransientError, Exit.CLICKHOUSE_UNREACHABLE),
        *((code, TransientError, Exit.CLICKHOUSE_UNREACHABLE) for code in (33, 75, 76, 517, 1001)),
        (6, PoisonError, Exit.NOT_FINE),
        (60, FatalError, Exit.CLICKHOUSE_TABLE),
        (516, FatalError, Exit.CLICKHOUSE_LOGIN),
        (99999, FatalError, Exit.CLICKHOUSE_REFUSED),
    ],
)
def test_codes_sort_into_wait_set_aside_and_stop(code: int | None, kind: type[PipelineError], exit_code: Exit) -> None:
    error = error_of(code, "first line\nsecond line")
    assert type(error) is kind
    assert error.exit_code == exit_code
    assert "second" not in str(error)


@pytest.mark.parametrize(
    ("code", "text", "todo"),
    [
        (452, "Setting max_result_rows should not be changed", "setting_name = 'max_result_rows'"),
        (452, "Setting max_execution_time shouldn't be greater than 10", "setting_name = 'max_execution_time'"),
        (164, "Cannot modify 'limit' setting in readonly mode", "limit, which outhaul sets"),
        (164, "nothing named", "ALTER USER `me` SETTINGS readonly = 0"),
        (158, "Limit for rows to read exceeded", "Raise the limit"),
        (456, "Substitution `source` is not set", "param_*"),
    ],
)
def test_what_a_profile_or_a_proxy_prevents_is_named_with_what_to_do(code: int, text: str, todo: str) -> None:
    error = error_of(code, text, user="me")
    assert isinstance(error, FatalError)
    assert todo in error.todo


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (413, FatalError, "the statement is too long"),
        (414, FatalError, "URL is too long"),
        (431, FatalError, "headers are too long"),
        (429, TransientError, "429 (Too Many Requests)"),
        (502, TransientError, "does not reach ClickHouse"),
        (503, TransientError, "no server"),
        (504, TransientError, "OUTHAUL_INSERT_TIMEOUT"),
        (527, TransientError, "answers HTTP 527: it failed"),
        (302, FatalError, "HTTP 302 (Found)"),
        (403, FatalError, "HTTP 403 (Forbidden)"),
        (404, FatalError, "HTTP 404 (Not Found)"),
    ],
)
def test_answers_of_a_proxy_are_told_apart(status: int, kind: type[PipelineError], text: str) -> None:
    error = error_of_status(status, "ch:8123/logs")
    assert type(error) is kind
    assert text in str(error)
    assert "ch:8123/logs" in str(error)


def test_rows_that_are_too_large_together_may_be_small_enough_apart() -> None:
    error = error_of_status(413, "ch:8123/logs", rows_bytes=2_000_000)
    assert isinstance(error, TooLargeError)
    assert isinstance(error, PoisonError)
    assert "2,000,000 bytes" in str(error)
    assert "client_max_body_size" in error.todo
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("code", [225, 242, 244, 254, 279, 285, 286, 289, 319, 415, 416, 571, 659, 999])
def test_what_keeper_or_a_replica_leaves_in_doubt_is_sent_again(code: int) -> None:
    assert isinstance(error_of(code, "Keeper"), TransientError)


def test_the_text_that_a_statement_raised_is_told_from_those_that_the_error_quotes() -> None:
    text = (
        "Code: 395. DB::Exception: outhaul: noted: while executing 'FUNCTION and(equals(throwIf(x, "
        "'outhaul: forgotten'), 0), equals(throwIf(y, 'outhaul: noted'), 0))'."
    )
    error = error_of(395, text)
    assert is_thrown(error)
    assert is_thrown(error, "outhaul: noted")
    assert not is_thrown(error, "outhaul: forgotten")
    of_a_view = "Code: 395. DB::Exception: too small: while executing 'throwIf(z)': while pushing to view v"
    assert not is_thrown(error_of(395, f"{of_a_view}, 'outhaul: stored already'"))
