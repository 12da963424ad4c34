"""ClickHouse's error codes sort into wait, set aside and stop."""

import pytest

from outhaul.sink.clickhouse_errors import POISON, TRANSIENT, error_of
from outhaul.sink.errors import Exit, FatalError, PipelineError, PoisonError, TransientError


def test_the_tables_of_codes_do_not_overlap() -> None:
    assert not TRANSIENT.keys() & POISON.keys()


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [
        (None, TransientError, Exit.CLICKHOUSE_UNREACHABLE),
        (252, TransientError, Exit.CLICKHOUSE_UNREACHABLE),
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
