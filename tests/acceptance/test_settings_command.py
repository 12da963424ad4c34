"""`outhaul settings` prints what a process would run with, and no secret."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.commands import outhaul_here

if TYPE_CHECKING:
    from pathlib import Path

KEY = "a-key-of-more-than-thirty-two-characters"


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outhaul.toml").write_text('linger_s = "500ms"\n')


ENV = {
    "OUTHAUL_POSTGRES_DSN": "postgresql://me:hunter2@db/app",
    "OUTHAUL_INSERT_TIMEOUT_S": "10m",
    "OUTHAUL_MESSAGE_KEY": KEY,
    "OUTHAUL_LINGERS": "1",
}


def test_values_and_origins_are_printed_as_json_and_secrets_are_masked(tmp_path: Path) -> None:
    code, said, errors = outhaul_here(ENV, "settings", "--json")
    assert (code, errors) == (0, "")
    found = {one["name"]: one for one in json.loads(said)["settings"]}
    assert found["postgres_dsn"] == {
        "name": "postgres_dsn",
        "variable": "OUTHAUL_POSTGRES_DSN",
        "value": "postgresql://me:[secret]@db/app",
        "origin": "environment",
        "where": "OUTHAUL_POSTGRES_DSN",
    }
    assert (found["message_key"]["value"], found["sentry_dsn"]["value"]) == ("[secret]", "")
    assert (found["linger_s"]["value"], found["linger_s"]["where"]) == (0.5, str(tmp_path / "outhaul.toml"))
    assert (found["task_time_limit_s"]["value"], found["task_time_limit_s"]["origin"]) == (1000, "derived")
    assert (found["source"]["value"], found["source"]["origin"]) == ("outhaul", "default")
    assert json.loads(said)["unknown"] == [{"name": "OUTHAUL_LINGERS", "nearest": "OUTHAUL_LINGER_S"}]
    assert "hunter2" not in said
    assert KEY not in said


def test_people_read_values_with_units_and_what_has_no_effect() -> None:
    code, said, _ = outhaul_here({**ENV, "COLUMNS": "200"}, "settings")
    lines = {line.split()[0]: line.split()[1:] for line in said.splitlines()}
    assert code == 0
    assert lines["OUTHAUL_INSERT_TIMEOUT_S"] == ["10m", "environment"]
    assert lines["OUTHAUL_BATCH_MAX_BYTES"] == ["24MiB", "default"]
    assert "OUTHAUL_LINGERS is not a setting and has no effect; did you mean OUTHAUL_LINGER_S?" in said
    assert "hunter2" not in said


def test_invalid_settings_end_with_their_exit_code() -> None:
    code, said, errors = outhaul_here({"OUTHAUL_LINGER_S": "soon"}, "settings", "--json")
    assert (code, said) == (3, "")
    assert "linger_s: 'soon' is not a duration" in errors


def test_a_command_warns_once_of_a_variable_that_nobody_reads() -> None:
    _, _, errors = outhaul_here({"OUTHAUL_LINGERS": "1", "OUTHAUL_LINGER_S": "soon"}, "status")
    assert errors.count("OUTHAUL_LINGERS is not a setting") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("verify", "--since", "soon"), "Invalid value for '--since': 'soon' is not a moment"),
        (("verify", "--wait", "soon"), "Invalid value for '--wait': 'soon' is not a duration"),
        (("top", "--every", "2m"), "Invalid value for '--every': '2m' is out of range"),
        (("pause", "--for", "2 h"), "Invalid value for '--for': '2 h' is not a duration"),
        (("prune", "--older-than", "7"), "Invalid value for '--older-than': '7' has no unit"),
        (("exporter", "--every", "100ms"), "Invalid value for '--every': '100ms' is out of range"),
    ],
)
def test_an_option_that_is_malformed_is_named_with_its_value(arguments: tuple[str, ...], complaint: str) -> None:
    code, _, errors = outhaul_here({"COLUMNS": "200", "TERMINAL_WIDTH": "200"}, *arguments)
    assert code == 2
    assert complaint in errors
