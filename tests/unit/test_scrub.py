"""No secret and no content of an event passes, in whatever form it comes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from outhaul.sink.errors import FatalError, PoisonError
from outhaul.sink.settings import Settings
from outhaul.sink.telemetry.scrub import HIDDEN, scrub_of
from outhaul.sink.telemetry.sentry.redact import Redact, without_quotes

PASSWORD = "pl/anted@pass word"
QUOTED = "pl%2Fanted%40pass%20word"
E_MAIL = "ada.lovelace@example.org"


def settings() -> Settings:
    return Settings(
        postgres_dsn=f"postgresql://app:{QUOTED}@db/app",
        clickhouse_url=f"http://app:{QUOTED}@ch:8123/app",
        redis_url=f"redis://:{QUOTED}@redis:6379/0",
    )


def raised(error: Exception, text: str) -> Any:
    """Return an error event as the SDK makes it, and has its text in more places than one."""
    event = {
        "exception": {"values": [{"value": f"cause: {text}"}, {"value": str(error)}]},
        "logentry": {"message": text},
        "extra": {"row": text},
        "user": {"email": E_MAIL},
        "breadcrumbs": {"values": [{"data": {"url": f"http://app:{QUOTED}@ch:8123/?email={E_MAIL}"}}]},
        "tags": {"outhaul.source": "app"},
    }
    return Redact(scrub_of(settings())).event(event, {"exc_info": (type(error), error, None)})


@pytest.mark.parametrize(
    "form", [PASSWORD, QUOTED, "pl%2Fanted%40pass+word", "OnBsL2FudGVkQHBhc3Mgd29yZA==", "pl/anted%40pass%20word"]
)
def test_a_secret_of_the_settings_is_taken_out_in_each_of_its_forms(form: str) -> None:
    assert scrub_of(settings()).text(f"it says <{form}> here") == f"it says <{HIDDEN}> here"


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("to postgresql://eve:hunter2@db/x", f"to postgresql://eve:{HIDDEN}@db/x"),
        ("host=db password='hun ter2' user=eve", f"host=db password={HIDDEN} user=eve"),
        ("http://ch:8123/?password=hunter2&query=1", f"http://ch:8123/?password={HIDDEN}&query=1"),
        ("nothing to hide at 10:30", "nothing to hide at 10:30"),
    ],
)
def test_what_looks_like_a_password_is_removed_also_if_no_setting_has_it(text: str, scrubbed: str) -> None:
    assert scrub_of(settings()).text(text) == scrubbed


def test_a_fatal_error_keeps_its_words_and_loses_what_it_quotes() -> None:
    sent = raised(FatalError(f"wrong password {PASSWORD} for {E_MAIL}; the server quotes 'secret row'"), PASSWORD)
    assert sent["exception"]["values"][0]["value"] == ""
    assert sent["exception"]["values"][1]["value"] == f"wrong password {HIDDEN} for [e-mail]; the server quotes '…'"
    assert sent["tags"] == {"outhaul.source": "app"}
    assert not {"user", "extra"} & sent.keys()
    for secret in (PASSWORD, QUOTED, E_MAIL):
        assert secret not in str(sent)


def test_of_an_error_of_the_data_only_the_code_is_reported() -> None:
    sent = raised(PoisonError("Cannot parse 4111 of row 7", code=6), E_MAIL)
    assert sent["exception"]["values"][1]["value"] == "ClickHouse refuses a value: 6 CANNOT_PARSE_TEXT"


@pytest.mark.parametrize(
    "text",
    [
        "duplicate key\nDETAIL:  Key (email)=(value-of-row) exists.",
        "cannot read 'value-of-row' as a number",
        "cannot read 'value-of-row, and the rest was cut",
        'bad JSON {"name": "value-of-row"}',
        f"a word of {'value-of-row' * 20}",
    ],
)
def test_a_message_is_reported_without_the_values_that_a_server_quotes(text: str) -> None:
    assert "value-of-row" not in without_quotes(text)
    assert without_quotes(text)


def test_the_password_of_a_url_with_several_servers_is_taken_out() -> None:
    """Newer Pythons refuse to split such a URL: an address in brackets is not the first one."""
    several = settings().model_copy(
        update={"redis_url": SecretStr("redis+sentinel://:another@one:26379,[::1]:26379/0?master=my")}
    )
    assert scrub_of(several).text("another was refused") == f"{HIDDEN} was refused"
