"""Settings are checked as a whole, each complaint names its field, and secrets stay out of sight."""

from pathlib import Path
from typing import Any

import pytest

from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.settings import Settings, load


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OUTHAUL_SLOT", "OUTHAUL_CONFIG", "OUTHAUL_LINGER_S", "OUTHAUL_POSTGRES_DSN"):
        monkeypatch.delenv(name, raising=False)


def test_the_budget_of_fields_is_kept() -> None:
    assert len(Settings.model_fields) <= 34


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "outhaul.toml").write_text('slot = "from_file"\nlinger_s = 0.5\n')
    monkeypatch.setenv("OUTHAUL_SLOT", "from_env")
    settings = load()
    assert (settings.slot, settings.linger_s) == ("from_env", 0.5)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"slot": "Robert'); DROP"}, "slot"),
        ({"publication": "a-b"}, "publication"),
        ({"linger_s": 0}, "linger_s"),
        ({"table": "outbox"}, "table"),
        ({"insert_timeout_s": 200}, "insert_timeout_s"),
        ({"task_time_limit_s": 400}, "visibility_timeout_s"),
        ({"retry_max_s": 500}, "retry_max_s"),
        ({"status_interval_s": 40}, "status_interval_s"),
        ({"rate_limit": "fast"}, "rate_limit"),
        ({"sentry_traces_rate": 2}, "sentry_traces_rate"),
        ({"log_level": "LOUD"}, "log_level"),
        ({"no_such_setting": 1}, "no_such_setting"),
        ({"more_tables": "audit.events"}, "more_tables"),
        ({"more_tables": "events=audit_log"}, "more_tables"),
        ({"more_tables": "audit.events=Audit-log"}, "more_tables"),
        ({"more_tables": "a.b=c, a.b=d"}, "more_tables"),
        ({"more_tables": "public.outbox=other"}, "more_tables"),
        ({"more_tables": "a.b=event_log"}, "ClickHouse table of its own"),
        ({"more_tables": "a.b=event_log_epochs"}, "ClickHouse table of its own"),
        ({"more_tables": {"a.b": "c", "d.e": "c"}}, "ClickHouse table of its own"),
    ],
)
def test_a_setting_that_does_not_hold_is_named(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(FatalError, match=word) as caught:
        load(**changes)
    assert caught.value.exit_code == Exit.SETTINGS


def test_several_outboxes_are_named_in_the_environment_and_in_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "outhaul.toml").write_text('[more_tables]\n"Audit.events" = "audit_log"\n')
    assert load().more_tables == {"Audit.events": "audit_log"}
    monkeypatch.setenv("OUTHAUL_MORE_TABLES", " a.b = c,d.e=f, ")
    settings = load()
    branches = settings.branches()
    assert [(one.table, one.clickhouse_table) for one in branches] == [
        ("public.outbox", "event_log"),
        ("a.b", "c"),
        ("d.e", "f"),
    ]
    assert {one.epochs_table for one in (settings, *branches)} == {"event_log_epochs"}
    assert [one.dead_letters_table for one in branches[1:]] == ["c_dead_letters", "f_dead_letters"]
    assert branches[1].branches() == (branches[1],)
    assert settings.branch_into("f") == branches[2]
    assert settings.branch_into("f_dead_letters") is None


def test_a_typo_in_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "outhaul.toml").write_text('slott = "x"\n')
    with pytest.raises(FatalError, match="slott"):
        load()


def test_secrets_hide() -> None:
    settings = load(postgres_dsn="postgresql://me:hunter2@db/app", redis_url="redis://:hunter2@r/0")
    assert "hunter2" not in repr(settings)
    with pytest.raises(FatalError) as caught:
        load(redis_url=["hunter2"])
    assert "hunter2" not in str(caught.value)
