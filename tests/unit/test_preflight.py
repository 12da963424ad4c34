"""What a connection that Postgres refuses means."""

import psycopg
import pytest

from outhaul.cdc_reader.postgres.preflight import connection_error
from outhaul.sink.errors import Exit, FatalError, TransientError

_PREFIX = 'connection failed: connection to server at "127.0.0.1", port 5432 failed: '


@pytest.mark.parametrize(
    "words",
    [
        "Connection refused",
        "FATAL:  the database system is starting up",
        "FATAL:  the database system is shutting down",
        "FATAL:  the database system is in recovery mode",
        "FATAL:  the database system is not yet accepting connections\nDETAIL:  Consistent state has not been reached.",
        "FATAL:  the database system is not accepting connections\nDETAIL:  Hot standby mode is disabled.",
        "FATAL:  sorry, too many clients already",
        "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute",
        'FATAL:  too many connections for role "outhaul"',
    ],
)
def test_a_server_that_cannot_be_reached_just_now_is_asked_again(words: str) -> None:
    error = connection_error(psycopg.OperationalError(_PREFIX + words))
    assert isinstance(error, TransientError)
    assert error.exit_code == Exit.POSTGRES_UNREACHABLE


@pytest.mark.parametrize(
    "words",
    [
        'FATAL:  password authentication failed for user "outhaul"',
        'FATAL:  database "shop" does not exist',
        'FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "outhaul", database "shop", no encryption',
    ],
)
def test_a_login_that_is_refused_needs_an_operator(words: str) -> None:
    error = connection_error(psycopg.OperationalError(_PREFIX + words))
    assert isinstance(error, FatalError)
    assert error.exit_code == Exit.POSTGRES_LOGIN
