"""A secret from a file is the secret of the variable; a file that does not hold one is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.settings import load

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["POSTGRES_DSN", "STREAM_DSN", "REDIS_URL", "CLICKHOUSE_URL", "SENTRY_DSN", "MESSAGE_KEY"]


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_secret_is_read_from_its_file_and_the_end_of_the_line_is_no_part_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    secret = "a-secret-of-more-than-32-characters"
    (tmp_path / "secret").write_text(secret + "\n")
    (tmp_path / "outhaul.toml").write_text(f'{name.lower()} = "what the file of settings says, 32 characters"\n')
    monkeypatch.setenv(f"OUTHAUL_{name}_FILE", str(tmp_path / "secret"))
    assert getattr(load(), name.lower()).get_secret_value() == secret


def test_an_empty_variable_names_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTHAUL_SENTRY_DSN_FILE", "")
    assert load().sentry_dsn.get_secret_value() == ""


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_holds_no_secret_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    variable = f"OUTHAUL_{name}"

    def refused(path: Path) -> str:
        monkeypatch.setenv(f"{variable}_FILE", str(path))
        with pytest.raises(FatalError, match=f"{variable}_FILE") as caught:
            load()
        assert caught.value.exit_code == Exit.SETTINGS
        assert str(path) in str(caught.value) or "both given" in str(caught.value)
        return str(caught.value)

    assert "No such file" in refused(tmp_path / "nowhere")
    assert "directory" in refused(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert "no text" in refused(tmp_path / "binary")
    (tmp_path / "empty").write_text("\n")
    assert "is empty" in refused(tmp_path / "empty")
    (tmp_path / "log").write_text("x" * (1 << 17))
    assert "too long" in refused(tmp_path / "log")
    monkeypatch.setenv(variable, "hunter2")
    assert "both given" in (said := refused(tmp_path / "empty"))
    assert "hunter2" not in said


def test_a_short_key_is_refused_and_not_printed() -> None:
    with pytest.raises(FatalError, match="at least 32 characters") as caught:
        load(message_key="hunter2")
    assert "hunter2" not in str(caught.value)
