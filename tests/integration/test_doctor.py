"""The doctor before real servers, with each kind of thing broken on purpose, and mended by the fix it names."""

from __future__ import annotations

import socket
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import redis as redis_client
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from cdc_reader.doctor import celery, clickhouse, columns, examine, monitoring, postgres, redis
from cdc_reader.doctor.finding import Finding, State
from cdc_reader.doctor.takes import takes
from cdc_reader.fence import raise_epoch
from cdc_reader.preflight import check_postgres
from cdc_reader.setup import apply_postgres, rebind
from cdc_reader.slot import History
from deploy.demo.pipeline import Pipeline
from sink import schema
from sink.errors import PipelineError
from sink.position import NO_LSN
from tests.conftest import World, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deploy.local.stack import Stack
    from sink.settings import Settings

_Findings = dict[str, Finding]


def changed(world: World, **urls: str) -> Settings:
    """The world's settings, but for some URLs."""
    return world.settings.model_copy(update={name: SecretStr(url) for name, url in urls.items()})


def of_postgres(world: World, settings: Settings | None = None) -> _Findings:
    settings = settings or world.settings
    return {one.check: one for one in postgres.judge(postgres.ask(settings), settings)}


def of_clickhouse(world: World) -> _Findings:
    return {one.check: one for one in clickhouse.judge(clickhouse.ask(world.settings), world.settings)}


def of_columns(world: World) -> _Findings:
    pg, ch = postgres.ask(world.settings), clickhouse.ask(world.settings)
    assert isinstance(ch.stored, clickhouse.Stored)
    return {one.check: one for one in columns.judge(pg.columns, ch.stored.columns, ch.stored.events)}


def of_redis(settings: Settings) -> _Findings:
    return {one.check: one for one in redis.judge(redis.ask(settings))}


def of_celery(world: World) -> _Findings:
    return {one.check: one for one in celery.judge(celery.ask(world.settings), world.settings)}


def troubles(findings: _Findings) -> dict[str, State]:
    return {check: one.state for check, one in findings.items() if one.state is not State.PASS}


# What the embedded servers are like: a superuser, no limit on WAL, and nobody streams in most of these tests.
ORDINARY = {
    "max_slot_wal_keep_size": State.WARN,
    "least privilege": State.WARN,
    "slot in use": State.WARN,
}


def test_a_pipeline_that_was_set_up_has_nothing_else_to_mend(world: World) -> None:
    assert troubles(of_postgres(world)) == ORDINARY
    assert troubles(of_clickhouse(world)) == {}
    assert troubles(of_columns(world)) == {}
    assert troubles(of_redis(world.settings)) == {}


def test_nothing_is_set_up_and_each_side_says_so(make_world: Callable[..., World]) -> None:
    world = make_world(setup=False)
    found = of_postgres(world)
    assert {check: found[check].state for check in ("outbox", "slot")} == {"outbox": State.FAIL, "slot": State.FAIL}
    assert all("outhaul setup" in found[check].fix for check in ("outbox", "slot"))
    tables = of_clickhouse(world)["tables"]
    assert (tables.state, "outhaul setup" in tables.fix) == (State.FAIL, True)


def test_a_slot_that_is_missing_fails(world: World) -> None:
    world.sql("SELECT pg_drop_replication_slot(%s)", world.settings.slot)
    found = of_postgres(world)["slot"]
    assert (found.state, world.settings.slot in found.found) == (State.FAIL, True)


def test_a_slot_with_another_plugin_fails(world: World) -> None:
    world.sql("SELECT pg_drop_replication_slot(%s)", world.settings.slot)
    world.sql("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", world.settings.slot)
    found = of_postgres(world)["slot"]
    assert (found.state, "test_decoding" in found.found) == (State.FAIL, True)


def test_a_slot_without_failover_is_mended_by_the_command_it_names(world: World) -> None:
    slot = world.settings.slot
    world.sql("SELECT pg_drop_replication_slot(%s)", slot)
    world.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", slot)
    found = of_postgres(world)["slot failover"]
    assert found.state is State.WARN
    command = found.fix.split("-c '")[1].split("'")[0]
    with psycopg.connect(world.dsn, autocommit=True, replication="database") as link:
        link.pgconn.exec_(command.encode())
    assert of_postgres(world)["slot failover"].state is State.PASS


def test_the_slot_tells_how_much_wal_it_keeps_and_how_far_behind_it_is(world: World) -> None:
    def sizes() -> tuple[int, int]:
        answer = postgres.ask(world.settings)
        assert answer.slot is not None
        assert answer.prospect is not None
        return answer.slot.retained_bytes or 0, answer.prospect.behind_bytes or 0

    before = sizes()
    world.insert(1000)
    assert all(now > then + 100_000 for now, then in zip(sizes(), before, strict=True))


@pytest.mark.parametrize(
    ("broken", "check", "state"),
    [
        ("ALTER PUBLICATION outhaul SET (publish = 'insert, update')", "insert only", State.WARN),
        ("ALTER PUBLICATION outhaul SET (publish = 'delete')", "publication", State.FAIL),
        ("ALTER PUBLICATION outhaul DROP TABLE outbox", "publication", State.FAIL),
        ("CREATE TABLE other (); ALTER PUBLICATION outhaul ADD TABLE other", "publication", State.FAIL),
        ("ALTER PUBLICATION outhaul SET (publish_via_partition_root = false)", "via root", State.WARN),
    ],
)
def test_a_publication_is_mended_by_the_statement_it_names(world: World, broken: str, check: str, state: State) -> None:
    world.conn.execute(broken.encode())
    found = of_postgres(world)[check]
    assert found.state is state
    world.conn.execute(found.fix.split(", or ")[0].encode())
    mended = of_postgres(world)
    assert mended[check].state is State.PASS
    assert mended["publication"].state is State.PASS


def test_a_publication_of_all_tables_is_a_trap_and_a_missing_one_a_failure(world: World) -> None:
    world.conn.execute("DROP PUBLICATION outhaul")
    assert of_postgres(world)["publication"].state is State.FAIL
    world.conn.execute("CREATE PUBLICATION outhaul FOR ALL TABLES WITH (publish_via_partition_root = true)")
    found = of_postgres(world)
    assert found["all tables"].state is State.WARN
    world.conn.execute(found["all tables"].fix.split("  --")[0].encode())
    assert troubles(of_postgres(world)) == ORDINARY


def partitioned(make_world: Callable[..., World]) -> World:
    world = make_world(setup=False)
    world.conn.execute(
        "CREATE TABLE outbox (id bigserial, event_type text NOT NULL, event_date_time timestamptz NOT NULL, "
        "environment text NOT NULL, event_context jsonb NOT NULL, metadata_version bigint) "
        "PARTITION BY RANGE (event_date_time)"
    )
    world.conn.execute("CREATE TABLE outbox_1 PARTITION OF outbox FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')")
    world.conn.execute("CREATE TABLE outbox_2 PARTITION OF outbox FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')")
    return world


def test_partitions_are_captured_by_way_of_the_root_and_by_no_other(make_world: Callable[..., World]) -> None:
    world = partitioned(make_world)
    world.conn.execute("CREATE PUBLICATION outhaul FOR TABLE outbox WITH (publish = 'insert')")
    found = of_postgres(world)
    assert {check: found[check].state for check in ("publication", "partitions")} == {
        "publication": State.FAIL,
        "partitions": State.FAIL,
    }
    world.conn.execute(found["publication"].fix.encode())
    mended = of_postgres(world)
    assert mended["publication"].state is State.PASS
    assert mended["partitions"].found == "all 2 are captured, and new ones will be"


def test_an_unlogged_partition_is_captured_by_nobody(make_world: Callable[..., World]) -> None:
    world = partitioned(make_world)
    world.conn.execute("CREATE PUBLICATION outhaul FOR TABLE outbox WITH (publish_via_partition_root = true)")
    world.conn.execute("DROP TABLE outbox_2")
    world.conn.execute(
        "CREATE UNLOGGED TABLE outbox_2 PARTITION OF outbox FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')"
    )
    found = of_postgres(world)["partitions"]
    assert (found.state, "outbox_2" in found.found) == (State.FAIL, True)
    assert found.fix.startswith("ALTER TABLE outbox_2 SET LOGGED;")


@contextmanager
def role_of(world: World, attributes: str) -> Iterator[str]:
    """A role of this test's own."""
    name = f"r_{world.settings.slot}"
    world.conn.execute(f"CREATE ROLE {name} {attributes}".encode())
    try:
        yield name
    finally:
        world.conn.execute(f"DROP OWNED BY {name}".encode())
        world.conn.execute(f"DROP ROLE {name}".encode())


def test_a_role_without_replication_or_grants_is_told_what_it_lacks(world: World) -> None:
    with role_of(world, "LOGIN") as name:
        settings = changed(world, postgres_dsn=make_conninfo(world.dsn, user=name))
        found = of_postgres(world, settings)
        assert {check: found[check].state for check in ("REPLICATION", "replication connection", "SELECT")} == {
            "REPLICATION": State.FAIL,
            "replication connection": State.FAIL,
            "SELECT": State.WARN,
        }
        assert found["least privilege"].state is State.PASS
        for check in ("REPLICATION", "SELECT"):
            world.conn.execute(found[check].fix.split("  --")[0].encode())
        assert troubles(of_postgres(world, settings)) == {
            check: state for check, state in ORDINARY.items() if check != "least privilege"
        }


def test_a_role_that_is_no_superuser_is_enough_for_the_reader_and_for_setup(world: World) -> None:
    with role_of(world, "LOGIN REPLICATION") as name:
        settings = changed(world, postgres_dsn=make_conninfo(world.dsn, user=name))
        check_postgres(settings)
        world.conn.execute(f"ALTER TABLE outbox OWNER TO {name}".encode())
        world.conn.execute(f"ALTER PUBLICATION outhaul OWNER TO {name}".encode())
        world.conn.execute(f"GRANT CREATE ON SCHEMA public TO {name}".encode())
        apply_postgres(settings, lambda _: None)
        world.conn.execute(f"REASSIGN OWNED BY {name} TO CURRENT_USER".encode())


def test_the_group_role_is_enough_for_an_outbox_in_a_schema_of_its_own(make_world: Callable[..., World]) -> None:
    world = make_world(setup=False, table="app.outbox")
    world.conn.execute("CREATE SCHEMA app")
    apply_postgres(world.settings, lambda _: None)
    with role_of(world, "LOGIN REPLICATION") as name:
        settings = changed(world, postgres_dsn=make_conninfo(world.dsn, user=name))
        with pytest.raises(PipelineError, match="permission denied for schema app"):
            postgres.ask(settings)
        world.conn.execute(f"GRANT outhaul_reader TO {name}".encode())
        check_postgres(settings)
        assert of_postgres(world, settings)["SELECT"].state is State.PASS


def test_a_wrong_password_is_one_line_that_does_not_hold_it(world: World) -> None:
    with role_of(world, "LOGIN PASSWORD 'right'") as name, asking_for_passwords(world, name):
        settings = changed(world, postgres_dsn=make_conninfo(world.dsn, user=name, password="wrong-secret"))
        with pytest.raises(PipelineError, match="Check user, password and database") as caught:
            postgres.ask(settings)
    assert "wrong-secret" not in str(caught.value)
    url = world.env["OUTHAUL_CLICKHOUSE_URL"]
    login = url.split("//")[1].split("@")[0]
    with pytest.raises(PipelineError, match="Check user and password") as caught:
        clickhouse.ask(changed(world, clickhouse_url=url.replace(login, "outhaul:wrong-secret")))
    assert "wrong-secret" not in str(caught.value)
    with pytest.raises(PipelineError, match="Check user, password and ACL") as caught:
        redis.ask(changed(world, redis_url=world.env["OUTHAUL_REDIS_URL"].replace("//", "//nobody:wrong-secret@")))
    assert "wrong-secret" not in str(caught.value)


@contextmanager
def asking_for_passwords(world: World, role: str) -> Iterator[None]:
    """Let pg_hba.conf ask this role for its password; the embedded server trusts everybody else."""
    path = Path(world.sql("SHOW hba_file"))
    before = path.read_text()
    path.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{before}")
    world.sql("SELECT pg_reload_conf()")
    try:
        until(
            lambda: world.sql("SELECT count(*) FROM pg_hba_file_rules WHERE %s = ANY(user_name)", role),
            what="the new rule",
        )
        until(lambda: _refused(make_conninfo(world.dsn, user=role)), what="a login without password is refused")
        yield
    finally:
        path.write_text(before)
        world.sql("SELECT pg_reload_conf()")


def _refused(dsn: str) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        return True
    return False


def test_a_column_that_clickhouse_lacks_is_named_and_one_of_a_position_fails(world: World) -> None:
    world.conn.execute("ALTER TABLE outbox ADD COLUMN amount money")
    world.clickhouse.command("ALTER TABLE event_log DROP COLUMN metadata_version")
    found = of_columns(world)
    assert found["new columns"].found.startswith("metadata_version (Int64), amount (String)")
    assert found["stored as text"].found.startswith("amount (money)")
    assert troubles(found) == {}
    world.clickhouse.command("ALTER TABLE event_log DROP COLUMN cdc_committed_at")
    found = of_columns(world)
    assert troubles(found) == {"column cdc_committed_at": State.FAIL}
    world.clickhouse.command(found["column cdc_committed_at"].fix)
    assert troubles(of_columns(world)) == {}


def test_a_column_of_a_type_that_is_too_small_is_mended_by_the_statement_it_names(world: World) -> None:
    world.clickhouse.command("ALTER TABLE event_log MODIFY COLUMN metadata_version Int32 DEFAULT 0")
    found = of_columns(world)
    assert troubles(found) == {"column metadata_version": State.FAIL}
    world.clickhouse.command(found["column metadata_version"].fix)
    assert troubles(of_columns(world)) == {}


def test_an_id_that_is_no_integer_fails(make_world: Callable[..., World]) -> None:
    world = make_world()
    world.conn.execute("ALTER TABLE outbox ALTER id DROP DEFAULT, ALTER id TYPE uuid USING gen_random_uuid()")
    found = of_columns(world)
    assert found["id"].state is State.FAIL
    # A uuid comes as text, which does not count as a number either.
    assert found["column id"].state is not State.PASS


def test_a_column_that_the_publication_leaves_out_is_named(world: World) -> None:
    world.conn.execute(
        "ALTER PUBLICATION outhaul SET TABLE outbox "
        "(id, event_type, event_date_time, environment, event_context, metadata_version)"
    )
    found = of_columns(world)
    assert troubles(found) == {"not published": State.WARN}
    assert found["not published"].found.startswith("event_key:")


def test_positions_of_another_cluster_fail_before_a_reader_stops_on_them(world: World) -> None:
    def history() -> Finding:
        return sections(world.settings)["Both sides"]["history"]

    assert history().found == "no reader has run yet"
    link = postgres.ask(world.settings).link
    assert isinstance(link, History)
    others = (History("7000000000000000000", link.timeline), History(link.system_identifier, link.timeline + 1))
    for epoch, known in enumerate((link, *others)):
        raise_epoch(world.clickhouse, world.settings, known, NO_LSN, epoch, f"owner{epoch}")
        found = history()
        assert found.state is (State.PASS if known == link else State.FAIL)
    assert found.fix.startswith("outhaul slot reset --recreate")
    rebind(world.clickhouse, world.settings)
    assert history().state is State.PASS


# Both ends, and where there is one, the first number that a double does not have.
_TELLING = {
    "Int16": ["-32768", "32767"],
    "Int32": ["-2147483648", "2147483647"],
    "Int64": ["-9223372036854775808", "9223372036854775807", "9007199254740993"],
    "UInt32": ["0", "4294967295"],
    "Bool": ["false", "true"],
}


@pytest.mark.parametrize("source", _TELLING)
def test_what_takes_a_number_is_what_clickhouse_gives_back_unchanged(world: World, source: str) -> None:
    for target in ("Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float64"):
        kept = all(
            world.ch(
                f"WITH CAST('{value}' AS {source}) AS sent, CAST(sent AS {target}) AS stored "
                f"SELECT CAST(stored AS {source}) = sent AND (toInt64(sent) < 0) = (stored < 0)"
            )
            for value in _TELLING[source]
        )
        assert (takes(source, target)[0] is State.PASS) is kept, target


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("DateTime64(6, 'UTC')", State.PASS),
        ("DateTime64(6, 'Asia/Tokyo')", State.PASS),
        ("DateTime64(3, 'UTC')", State.WARN),
        ("DateTime64(9, 'UTC')", State.WARN),
        ("DateTime('UTC')", State.FAIL),
    ],
)
def test_the_ends_of_time_are_what_the_server_makes_of_them(
    make_world: Callable[..., World], kind: str, state: State
) -> None:
    world = make_world(setup=False)
    make_tables(world, event_date_time=kind)
    assert of_clickhouse(world)["event_date_time"].state is state


def make_tables(
    world: World, engine: str = "ReplacingMergeTree", event_date_time: str = "DateTime64(6, 'UTC')"
) -> None:
    """The tables of a pipeline whose `event_log` somebody else has made."""
    world.clickhouse.command(
        f"CREATE TABLE event_log (id Int64, event_type String, event_date_time {event_date_time}, environment String, "
        "event_context String, metadata_version Nullable(Int64), cdc_source String, cdc_lsn UInt64, "
        "cdc_ordinal UInt64, cdc_committed_at DateTime64(6, 'UTC'), cdc_ingested_at DateTime64(6, 'UTC')) "
        f"ENGINE = {engine} PARTITION BY toYYYYMM(event_date_time) ORDER BY (event_type, event_date_time, id)"
    )
    # What is there is left as it is.
    schema.apply(world.clickhouse, world.settings)


def test_a_table_that_forgets_tokens_is_mended_by_the_statement_it_names(make_world: Callable[..., World]) -> None:
    world = make_world(setup=False)
    make_tables(world)
    found = of_clickhouse(world)
    assert troubles(found) == {"tokens": State.FAIL}
    world.clickhouse.command(found["tokens"].fix)
    assert troubles(of_clickhouse(world)) == {}


def test_a_table_that_merges_events_fails(make_world: Callable[..., World]) -> None:
    world = make_world(setup=False)
    make_tables(world, engine="SummingMergeTree")
    assert of_clickhouse(world)["engine"].state is State.FAIL


def test_a_missing_table_and_a_missing_database_are_told_in_one_line(world: World) -> None:
    world.clickhouse.command("DROP TABLE event_log_epochs SYNC")
    found = of_clickhouse(world)["tables"]
    assert (found.state, "'event_log_epochs'" in found.found) == (State.FAIL, True)
    url = world.env["OUTHAUL_CLICKHOUSE_URL"]
    with pytest.raises(PipelineError, match="Create the database"):
        clickhouse.ask(changed(world, clickhouse_url=f"{url}_none"))


def test_parts_that_pile_up_are_counted_by_partition(world: World) -> None:
    world.clickhouse.command("ALTER TABLE event_log MODIFY SETTING parts_to_delay_insert = 2")
    for number in range(3):
        month = min(number, 1) + 1
        world.clickhouse.command(
            "INSERT INTO event_log (id, event_type, event_date_time, cdc_source, cdc_lsn) "
            f"VALUES ({number}, 'a', '2026-0{month}-01 00:00:00', 'x', 1)"
        )
    found = of_clickhouse(world)["parts"]
    assert found.state is State.WARN
    assert found.found == "2 in the fullest partition, delayed at 2, refused at 3000"
    world.clickhouse.command(found.fix.split("  --")[0])


def test_dead_letters_of_this_source_are_counted(world: World) -> None:
    for source in (world.settings.source, "another"):
        world.clickhouse.command(
            "INSERT INTO event_log_dead_letters (row, reason, cdc_source, cdc_lsn, cdc_ordinal) "
            f"VALUES ('{{}}', 'test', '{source}', 1, 1)"
        )
    found = of_clickhouse(world)["dead letters"]
    assert (found.state, found.found) == (State.WARN, "1 events could not be stored as they are")


def test_a_privilege_that_the_server_denies_is_told_apart(world: World) -> None:
    assert clickhouse.granted(world.clickhouse, "INSERT", "event_log") is True
    # The embedded engine's one user may do everything but this.
    assert clickhouse.granted(world.clickhouse, "CREATE USER", "*") is False
    assert clickhouse.granted(world.clickhouse, "NO SUCH PRIVILEGE", "event_log") is None


def test_a_replicated_table_s_consistency_can_be_asked_for(world: World) -> None:
    answer = clickhouse.ask(world.settings)
    assert isinstance(answer.stored, clickhouse.Stored)
    found = clickhouse._consistency(world.clickhouse, answer.stored.events)
    assert found is not None
    assert found.replicas == 1


@pytest.fixture
def valkey(world: World) -> Iterator[redis_client.Redis]:
    """The shared Redis, put back as it was."""
    with redis_client.Redis.from_url(world.env["OUTHAUL_REDIS_URL"]) as client:
        names = ("maxmemory-policy", "maxmemory")
        before = {name: client.config_get(name)[name] for name in names}
        yield client
        for name, value in before.items():
            client.config_set(name, value)


def test_a_redis_that_evicts_or_is_nearly_full_is_mended_by_the_command_it_names(
    world: World, valkey: redis_client.Redis
) -> None:
    used = int(valkey.info("memory")["used_memory"])
    valkey.config_set("maxmemory-policy", "allkeys-lru")
    valkey.config_set("maxmemory", used + (50 << 20))
    found = of_redis(world.settings)
    assert troubles(found) == {"maxmemory-policy": State.FAIL, "memory": State.FAIL}
    for check in ("maxmemory-policy", "memory"):
        _, _, name, value = found[check].fix.split("  --")[0].split()
        valkey.config_set(name, value)
    assert troubles(of_redis(world.settings)) == {}


def test_a_redis_that_takes_nothing_more_is_told(world: World, valkey: redis_client.Redis) -> None:
    valkey.config_set("maxmemory", 1)
    found = of_redis(world.settings)
    assert troubles(found) == {"memory": State.FAIL, "takes a payload": State.FAIL}
    assert found["takes a payload"].found == "Redis is full (maxmemory reached)"


def test_messages_that_nobody_takes_fail(world: World) -> None:
    with redis_client.Redis.from_url(world.env["OUTHAUL_REDIS_URL"]) as client:
        client.rpush(world.settings.queue, *["{}"] * 9)
        assert {check: one.state for check, one in of_celery(world).items()} == {
            "workers": State.FAIL,
            "queue": State.WARN,
        }
        client.delete(world.settings.queue)
    assert troubles(of_celery(world)) == {"workers": State.WARN}


def test_a_worker_with_other_limits_is_named_and_one_of_another_pipeline_is_not(world: World, tmp_path: Path) -> None:
    logs = tmp_path / "other"
    logs.mkdir()
    other = Pipeline(world.env | {"OUTHAUL_SOURCE": "another"}, logs)
    try:
        other.start("worker")
        world.pipeline.start("worker", OUTHAUL_TASK_TIME_LIMIT_S="90")
        until(lambda: "workers" not in troubles(of_celery(world)), what="the worker answers", within_s=60)
        found = of_celery(world)
        assert found["workers"].found.startswith("1: ")
        assert troubles(found) == {"limits": State.WARN}
        assert "task 75 s and 90 s" in found["limits"].found
    finally:
        other.kill()


@contextmanager
def listening() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


def test_sentry_and_the_metrics_port_are_tried_where_they_are_set(world: World) -> None:
    assert monitoring.ask(world.settings) == ()
    with listening() as port:
        assert monitoring.sentry(f"http://key@127.0.0.1:{port}/1").state is State.PASS
        assert monitoring.metrics(port).state is State.WARN
    refused = monitoring.sentry(f"http://very-secret@127.0.0.1:{port}/1")
    assert (refused.state, "very-secret" in f"{refused}") == (State.WARN, False)
    assert monitoring.sentry("http://very-secret").found == "the DSN is malformed"
    settings = world.settings.model_copy(update={"sentry_dsn": SecretStr("x"), "metrics_port": port})
    assert [finding.check for finding in monitoring.ask(settings)] == ["Sentry", "metrics"]


def test_the_metrics_port_of_a_reader_answers(world: World) -> None:
    with listening() as port:
        pass
    world.pipeline.start("reader", OUTHAUL_METRICS_PORT=str(port))
    until(world.reader_state, what="the reader runs")
    assert monitoring.metrics(port).state is State.PASS


def sections(settings: Settings, **options: Any) -> dict[str, dict[str, Finding]]:
    found = examine.examine(settings, **options)
    return {section.group: {one.check: one for one in section.findings} for section in found}


@pytest.mark.parametrize("name", ["postgres_dsn", "clickhouse_url", "redis_url"])
def test_a_server_that_never_answers_costs_its_section_and_a_bounded_time(world: World, name: str) -> None:
    with listening() as port:
        scheme = {"postgres_dsn": "postgresql", "clickhouse_url": "http", "redis_url": "redis"}[name]
        begun = time.monotonic()
        found = sections(changed(world, **{name: f"{scheme}://x@127.0.0.1:{port}/0"}))
        assert time.monotonic() - begun < examine.WITHIN_S + 2
    silent = {"postgres_dsn": {"Postgres"}, "clickhouse_url": {"ClickHouse"}, "redis_url": {"Redis", "Celery"}}[name]
    for group in ("Postgres", "ClickHouse", "Redis", "Celery"):
        assert (found[group].keys() == {"answers"}) is (group in silent), group
    for group in silent:
        assert found[group]["answers"].state is State.FAIL
    assert (found["Both sides"].keys() == {"comparison"}) is bool(silent & {"Postgres", "ClickHouse"})
    assert "measured from here" in found["Clocks"]["clocks"].found


def test_nobody_waits_for_longer_than_was_said(world: World) -> None:
    with listening() as port:
        begun = time.monotonic()
        found = sections(changed(world, postgres_dsn=f"postgresql://x@127.0.0.1:{port}/x"), within_s=1.0)
        assert time.monotonic() - begun < 4
    assert found["Postgres"]["answers"].found == "Postgres has not answered within 1 s"


def test_a_checkup_changes_nothing(world: World, stack: Stack) -> None:
    def all_there_is() -> tuple[Any, ...]:
        catalogue = world.conn.execute(
            "SELECT slot_name, plugin, failover, confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = %s",
            [world.settings.slot],
        ).fetchall()
        parts = world.clickhouse.rows("SELECT table, count() FROM system.parts WHERE database = currentDatabase() "
                                      "GROUP BY table ORDER BY table")  # fmt: skip
        tables = world.clickhouse.rows("SELECT create_table_query FROM system.tables "
                                       "WHERE database = currentDatabase() ORDER BY name")  # fmt: skip
        with redis_client.Redis.from_url(world.env["OUTHAUL_REDIS_URL"]) as client:
            ours = sorted(key for key in client.keys("*") if world.settings.source.encode() in key)
        return catalogue, parts, tables, ours

    before = all_there_is()
    examine.examine(world.settings)
    assert all_there_is() == before
