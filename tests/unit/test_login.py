"""What a connection that Postgres refuses means: by its code, in whatever language the server speaks."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import make_conninfo

from outhaul.cdc_reader.postgres.errors import NotAllowedError, error_of
from outhaul.cdc_reader.postgres.query import connect
from outhaul.cdc_reader.postgres.slot import open_link
from outhaul.sink.errors import Exit, FatalError, PipelineError, TransientError
from tests.unit import refusing_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def refusing() -> Iterator[Callable[..., str]]:
    """Return DSNs of a server that refuses this many connections, with this severity, code and text."""
    with subprocess.Popen([sys.executable, refusing_server.__file__], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()

        def dsn(severity: str, code: str, words: str, times: int = 1000) -> str:
            return make_conninfo(
                host="127.0.0.1", port=port, user="x", dbname=json.dumps([severity, code, words, times])
            )

        yield dsn
        server.kill()


def _ordinary(dsn: str) -> None:
    connect(dsn).close()


def _stream(dsn: str) -> None:
    open_link(dsn, "outhaul", "outhaul").close()


both_ways = pytest.mark.parametrize("attempt", [_ordinary, _stream])


@both_ways
@pytest.mark.parametrize(
    ("severity", "code", "words"),
    [
        ("FATAL", "57P03", "the database system is starting up"),
        ("FATAL", "57P03", "das Datenbanksystem fährt hoch"),
        ("ВАЖНО", "53300", "извините, уже слишком много клиентов"),
        ("致命的エラー", "57P03", "データベースシステムはシャットダウンしています"),
        ("FATAL", "53300", "trop de connexions pour le rôle « outhaul »"),
        ("FATAL", "57P01", "terminating connection due to administrator command"),
    ],
)
def test_a_server_that_takes_no_connection_just_now_is_asked_again(
    attempt: Callable[[str], None], refusing: Callable[..., str], severity: str, code: str, words: str
) -> None:
    with pytest.raises(TransientError, match=words) as caught:
        attempt(refusing(severity, code, words))
    assert caught.value.exit_code is Exit.POSTGRES_UNREACHABLE


@both_ways
@pytest.mark.parametrize(
    ("severity", "code", "words"),
    [
        ("FATAL", "28P01", 'password authentication failed for user "outhaul"'),
        ("FATAL", "28000", "too many words that say: the database system is starting up"),
        ("ВАЖНО", "28P01", "пользователь не прошёл проверку подлинности"),
        ("KATASTROFALNY", "3D000", "baza danych nie istnieje"),
        ("FATAL", "XX000", "Tenant or user not found"),
    ],
)
def test_a_login_that_is_refused_needs_an_operator(
    attempt: Callable[[str], None], refusing: Callable[..., str], severity: str, code: str, words: str
) -> None:
    with pytest.raises(FatalError, match=words) as caught:
        attempt(refusing(severity, code, words))
    assert caught.value.exit_code is Exit.POSTGRES_LOGIN


@both_ways
def test_a_role_without_the_right_to_connect_gets_an_error_that_names_it(
    attempt: Callable[[str], None], refusing: Callable[..., str]
) -> None:
    with pytest.raises(NotAllowedError, match="keine Berechtigung") as caught:
        attempt(refusing("FATAL", "42501", "keine Berechtigung für Datenbank shop"))
    assert caught.value.exit_code is Exit.ROLE


@both_ways
def test_a_pooler_that_does_not_know_a_parameter_is_named(
    attempt: Callable[[str], None], refusing: Callable[..., str]
) -> None:
    with pytest.raises(FatalError, match="pooler") as caught:
        attempt(refusing("FATAL", "08P01", "unsupported startup parameter: options"))
    assert caught.value.exit_code is Exit.POSTGRES_LOGIN
    assert "Postgres itself" in caught.value.todo


@both_ways
def test_a_refusal_that_is_over_when_its_code_is_asked_for_is_no_reason_to_stop(
    attempt: Callable[[str], None], refusing: Callable[..., str]
) -> None:
    dsn = refusing("FATAL", "28P01", f"refused once, to {attempt.__name__}", times=1)
    with pytest.raises(TransientError, match="refused once"):
        attempt(dsn)


@both_ways
def test_a_port_that_nobody_listens_on_does_not_answer(attempt: Callable[[str], None]) -> None:
    with pytest.raises(PipelineError, match="does not answer") as caught:
        attempt("postgresql://127.0.0.1:1/shop")
    assert caught.value.exit_code is Exit.POSTGRES_UNREACHABLE


def test_no_message_has_an_empty_name() -> None:
    codes = ["42704", "22023", "55006", "55000", "42P01", "42501", "57014", "25P03", "25P04", "57P05", "28000", None]
    for code in codes:
        assert "''" not in str(error_of(code, "snapshot does not exist"))
