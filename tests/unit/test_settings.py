"""Settings are checked as a whole, each complaint names its field, and secrets stay out of sight."""

from pathlib import Path
from typing import Any

import pytest

from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.keys import STREAM
from outhaul.sink.settings import SHARD_BITS, Settings, load


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
        ({"insert_timeout_s": 200, "task_time_limit_s": 100}, "insert_timeout_s"),
        ({"task_time_limit_s": 400, "visibility_timeout_s": 300}, "visibility_timeout_s"),
        ({"retry_max_s": 500}, "retry_max_s"),
        ({"status_interval_s": 40, "receive_timeout_s": 60}, "status_interval_s"),
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
    outboxes = settings.outboxes()
    assert [(one.table, one.clickhouse_table) for one in outboxes] == [
        ("public.outbox", "event_log"),
        ("a.b", "c"),
        ("d.e", "f"),
    ]
    assert settings.epochs_table == "event_log_epochs"
    assert [one.dead_letters_table for one in outboxes[1:]] == ["c_dead_letters", "f_dead_letters"]
    assert settings.outbox_into("f") == outboxes[2]
    assert settings.outbox_into("f_dead_letters") is None


def test_an_outbox_is_quoted_for_sql_where_postgres_would_fold_its_name() -> None:
    (outbox,) = load(table="Audit.events").outboxes()
    assert (outbox.table, outbox.sql_table) == ("Audit.events", '"Audit".events')


def test_one_stream_has_the_names_of_the_settings() -> None:
    settings = load(slot="s", publication="p", source="src")
    (stream,) = settings.streams()
    assert stream == settings.undivided
    assert (stream.slot, stream.publication, stream.shard, stream.lane, stream.fence) == ("s", "p", None, STREAM, "src")
    assert (stream.first_ordinal, stream.row_condition, stream.message_prefix) == (0, "", "p")


def test_each_shard_is_a_stream_of_its_own_and_the_first_brings_messages() -> None:
    settings = load(slot="s", publication="p", source="src", shards=2)
    streams = settings.streams()
    assert streams == (settings.stream(0), settings.stream(1))
    assert [(one.slot, one.publication) for one in streams] == [("s_0of2", "p_0of2"), ("s_1of2", "p_1of2")]
    assert [one.fence for one in streams] == ["src/stream_0of2", "src/stream_1of2"]
    assert [one.row_condition for one in streams] == ["abs(id % 2) = 0", "abs(id % 2) = 1"]
    assert [one.first_ordinal for one in streams] == [0, 1 << SHARD_BITS]
    assert [one.message_prefix for one in streams] == ["p", ""]
    assert (settings.undivided.slot, settings.undivided.fence, settings.undivided.row_condition) == ("s", "src", "")


def test_an_outbox_and_a_stream_print_without_the_settings() -> None:
    settings = load(postgres_dsn="postgresql://me:hunter2@db/app")
    assert repr(settings.outboxes()[0]) == "Outbox(table='public.outbox', clickhouse_table='event_log')"
    assert repr(settings.streams()[0]) == "Stream(shard=None, shards=1)"


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
