"""Settings are checked as a whole, each complaint names its field, and secrets stay out of sight."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.lanes import STREAM
from outhaul.sink.settings import SHARD_BITS, Settings, load
from outhaul.sink.settings.load import secrets
from outhaul.sink.settings.origin import Kind, Origin, origins
from outhaul.sink.settings.variables import unknown


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OUTHAUL_SLOT", "OUTHAUL_CONFIG", "OUTHAUL_LINGER_S", "OUTHAUL_POSTGRES_DSN"):
        monkeypatch.delenv(name, raising=False)


def test_the_budget_of_fields_is_kept() -> None:
    assert len(Settings.model_fields) <= 36


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "outhaul.toml").write_text('slot = "from_file"\nlinger_s = 0.5\n')
    monkeypatch.setenv("OUTHAUL_SLOT", "from_env")
    settings = load()
    assert (settings.slot, settings.linger_s) == ("from_env", 0.5)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"slot": "Robert'); DROP"}, "slot"),
        ({"publication": "p" * 64}, "publication"),
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
        ({"more_tables": "audit.events="}, "more_tables"),
        ({"more_tables": 'a.b=c, "a"."b"=d'}, "more_tables"),
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


def test_a_typo_in_the_file_is_named_with_the_nearest_setting(tmp_path: Path) -> None:
    (tmp_path / "outhaul.toml").write_text('slott = "x"\n')
    with pytest.raises(FatalError, match=r"slott in outhaul.toml is not a setting; did you mean slot\?"):
        load()


def test_a_file_that_is_not_toml_is_an_error_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "outhaul.toml").write_text("slot = \n")
    with pytest.raises(FatalError, match=r"outhaul.toml is not TOML") as caught:
        load()
    assert caught.value.exit_code == Exit.SETTINGS


def test_secrets_hide() -> None:
    settings = load(postgres_dsn="postgresql://me:hunter2@db/app", redis_url="redis://:hunter2@r/0")
    assert "hunter2" not in repr(settings)
    with pytest.raises(FatalError) as caught:
        load(redis_url=["hunter2"])
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("OUTHAUL_LINGER_S", "500ms", 0.5),
        ("OUTHAUL_INSERT_TIMEOUT_S", "1h30m", 5400),
        ("OUTHAUL_INSERT_TIMEOUT_S", "90", 90),
        ("OUTHAUL_BATCH_MAX_BYTES", "24MiB", 24 << 20),
        ("OUTHAUL_BATCH_MAX_BYTES", "1048576", 1 << 20),
        ("OUTHAUL_PARK_WAL_BYTES", "50GB", 50 * 10**9),
        ("OUTHAUL_PRUNE_OLDER_THAN", "7d", 604_800),
        ("OUTHAUL_PRUNE_OLDER_THAN", "", None),
    ],
)
def test_durations_and_sizes_have_units_in_the_environment_and_in_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, text: str, expected: float
) -> None:
    name = variable.removeprefix("OUTHAUL_").lower()
    (tmp_path / "outhaul.toml").write_text(f'{name} = "{text}"\n')
    assert getattr(load(), name) == expected
    (tmp_path / "outhaul.toml").unlink()
    monkeypatch.setenv(variable, text)
    assert getattr(load(), name) == expected


def test_a_number_in_the_file_keeps_its_meaning(tmp_path: Path) -> None:
    (tmp_path / "outhaul.toml").write_text("linger_s = 0.5\nbatch_max_bytes = 2048\n")
    assert (load().linger_s, load().batch_max_bytes) == (0.5, 2048)


def test_a_malformed_duration_is_the_only_complaint_and_comes_with_examples() -> None:
    with pytest.raises(FatalError) as caught:
        load(insert_timeout_s="10 minutes")
    assert "insert_timeout_s: '10 minutes' is not a duration: write 500ms" in caught.value.message
    assert "task_time_limit_s" not in caught.value.message


TIMEOUTS = ("task_time_limit_s", "visibility_timeout_s", "redispatch_s", "retry_max_s", "receive_timeout_s")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (100, 300, 120, 30, 60)),
        ({"insert_timeout_s": "10m"}, (1000, 3000, 1200, 30, 60)),
        ({"insert_timeout_s": 5}, (100, 300, 120, 30, 60)),
        ({"task_time_limit_s": 400}, (400, 1200, 120, 30, 60)),
        ({"redispatch_s": 20}, (100, 300, 20, 10, 60)),
        ({"status_interval_s": 45}, (100, 300, 120, 30, 90)),
    ],
)
def test_timeouts_that_are_not_set_follow_those_that_are(changes: dict[str, Any], expected: tuple[float, ...]) -> None:
    settings = load(**changes)
    assert tuple(getattr(settings, name) for name in TIMEOUTS) == expected


@given(
    st.dictionaries(st.sampled_from(["insert_timeout_s", "status_interval_s", "redispatch_s"]), st.floats(0.001, 1e6))
)
def test_any_one_of_the_timeouts_that_others_follow_gives_a_consistent_set(changes: dict[str, float]) -> None:
    settings = load(**changes)
    assert settings.insert_timeout_s < settings.task_time_limit_s < settings.visibility_timeout_s
    assert settings.retry_max_s < settings.redispatch_s
    assert settings.status_interval_s * 2 <= settings.receive_timeout_s


def test_a_check_that_fails_says_what_to_type() -> None:
    with pytest.raises(FatalError, match=r"got 200s, 100s, 5m\. Set OUTHAUL_INSERT_TIMEOUT_S alone"):
        load(insert_timeout_s=200, task_time_limit_s=100)
    with pytest.raises(FatalError, match="Unset OUTHAUL_RETRY_MAX_S"):
        load(retry_max_s=500)
    with pytest.raises(FatalError, match="Set OUTHAUL_STATUS_INTERVAL_S=30s or less"):
        load(status_interval_s=40, receive_timeout_s=60)


def test_a_variable_that_nobody_reads_is_named_with_the_nearest_one() -> None:
    names = [
        "OUTHAUL_LINGERS",
        "OUTHAUL_INSERT_TIMEOUT",
        "OUTHAUL_XYZZY",
        "OUTHAUL_LINGER_S_FILE",
        *("OUTHAUL_SLOT", "outhaul_slot", "OUTHAUL_CONFIG", "OUTHAUL_FAILPOINTS", "OUTHAUL_POSTGRES_DSN_FILE"),
        *("OUTHAUL_TEST_IMAGES", "OUTHAUL_READER_SERVICE_HOST", "OUTHAUL_READER_PORT_9461_TCP_ADDR", "PATH"),
    ]
    found = {one.name: one.nearest for one in unknown(names, Settings.model_fields, secrets())}
    assert found == {
        "OUTHAUL_INSERT_TIMEOUT": "OUTHAUL_INSERT_TIMEOUT_S",
        "OUTHAUL_LINGERS": "OUTHAUL_LINGER_S",
        "OUTHAUL_LINGER_S_FILE": "OUTHAUL_LINGER_S",
        "OUTHAUL_XYZZY": "",
    }


def test_each_value_says_where_it_came_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "outhaul.toml").write_text('slot = "from_file"\nlinger_s = 0.5\n')
    (tmp_path / "dsn").write_text("postgresql://db/app")
    monkeypatch.setenv("OUTHAUL_SLOT", "from_env")
    monkeypatch.setenv("OUTHAUL_POSTGRES_DSN_FILE", str(tmp_path / "dsn"))
    found = origins()
    assert found["slot"] == Origin(Kind.ENVIRONMENT, "OUTHAUL_SLOT")
    assert found["linger_s"] == Origin(Kind.TOML, str(tmp_path / "outhaul.toml"))
    assert found["postgres_dsn"] == Origin(Kind.FILE, str(tmp_path / "dsn"))
    assert found["source"] == Origin(Kind.DEFAULT)
    assert found["redispatch_s"] == Origin(Kind.DERIVED, "twice OUTHAUL_INSERT_TIMEOUT_S, at least 120s")
    assert found.keys() == Settings.model_fields.keys()


def test_what_kubernetes_sets_after_a_service_is_not_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTHAUL_METRICS_PORT", "tcp://10.0.0.7:9461")
    assert load().metrics_port == 0
    assert origins()["metrics_port"].kind is Kind.DEFAULT
    monkeypatch.setenv("OUTHAUL_METRICS_PORT", "9461")
    assert load().metrics_port == 9461
