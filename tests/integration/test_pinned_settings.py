"""What a user's profile, or a proxy on the way, does to our statements: the promise holds, or the error says why.

A setting that comes in the URL is like one of the profile: the statement's own clause comes after both. So most tests
bend one setting with a proxy that adds it to each request. Each is run a second time without the pin, and must fail.
The embedded engine has no query cache, and makes no insert asynchronous; those pins are not tried here.
"""

from __future__ import annotations

import itertools
import os
import random
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pytest

from outhaul.cdc_reader.session.recovery import ask_stored_positions
from outhaul.deploy.local.stack import Stack
from outhaul.sink import clickhouse as clickhouse_module
from outhaul.sink import insert as inserting
from outhaul.sink import pinned_settings, schema
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import Exit, FatalError, PipelineError, PoisonError, TooLargeError, TransientError
from outhaul.sink.fence import EpochOverError, guard, newest_epoch
from outhaul.sink.insert import Target, contents_of, parameters, statement
from outhaul.sink.pinned_settings import PINNED
from outhaul.sink.position import Lsn
from outhaul.sink.quarantine import set_aside
from outhaul.sink.settings import load_from
from tests.clickhouse_proxy import Pairs, Rules, proxy_before
from tests.integration.test_exactly_once import batch_of, field, message_of, own, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from outhaul.sink.batch import Batch
    from outhaul.sink.settings import Outbox, Settings, Stream
    from tests.conftest import World

TABLES = ("event_log", "event_log_dead_letters")
_numbers = itertools.count()


@pytest.fixture
def world(stack: Stack) -> Iterator[World]:
    """A database of ClickHouse with outhaul's tables; Postgres and Redis are not needed here."""
    stack.up(["clickhouse"])
    url = stack.env()["OUTHAUL_CLICKHOUSE_URL"]
    name = f"pinned_{os.getpid()}_{next(_numbers)}"
    with ClickHouse(url, timeout_s=30) as admin:
        admin.command(f"CREATE DATABASE {name}")
        with _place(f"{url.rsplit('/', 1)[0]}/{name}") as place:
            yield place
        admin.command(f"DROP DATABASE {name}")


@contextmanager
def _place(url: str) -> Iterator[World]:
    env = {
        "OUTHAUL_POSTGRES_DSN": "host=127.0.0.1",
        "OUTHAUL_REDIS_URL": "redis://127.0.0.1/0",
        "OUTHAUL_CLICKHOUSE_URL": url,
        "OUTHAUL_SOURCE": "pinned",
    }
    settings = load_from(env)
    with ClickHouse(url, timeout_s=30) as clickhouse:
        schema.apply(clickhouse, settings)
        yield cast("World", Place(env, settings, clickhouse))


@dataclass
class Place:
    """The part of a World that these tests use."""

    env: dict[str, str]
    settings: Settings
    clickhouse: ClickHouse

    @property
    def stream(self) -> Stream:
        return self.settings.undivided

    @property
    def outbox(self) -> Outbox:
        return self.settings.outboxes()[0]

    def ch(self, query: str) -> Any:
        return self.clickhouse.rows(query)[0][0]

    def stored(self) -> int:
        return int(self.ch("SELECT count() FROM event_log"))


def add(settings: dict[str, str], pairs: Pairs) -> Pairs:
    return [*settings.items(), *(pair for pair in pairs if pair[0] not in settings)]


def target_of(world: World) -> Target:
    return Target(*TABLES, "event_log_view_gaps", guard(world.settings), timeout_s=30)


def put(clickhouse: ClickHouse, world: World, batch: Batch, token: str = "") -> None:
    message = message_of(world, batch)
    message = replace(message, token=token or message.token)
    inserting.insert(clickhouse, message, batch.payload, target_of(world))


def put_by_token(clickhouse: ClickHouse, world: World, batch: Batch) -> None:
    """Insert without asking which positions are stored: the token alone keeps rows from being stored twice."""
    message, contents = message_of(world, batch), contents_of(batch.payload)
    clickhouse.command(
        statement("event_log", target_of(world), contents, ""),
        parameters=parameters(message, contents),
        settings=inserting.settings(message, target_of(world)),
        data=batch.payload,
    )


# What must hold, whatever the profile says


def every_row_is_returned(clickhouse: ClickHouse, world: World) -> None:
    own(world)
    put(clickhouse, world, batch_of(world, rows(300, months=12)))
    assert world.stored() == 300
    ids = {id_ for (id_,) in clickhouse.rows("SELECT id FROM event_log GROUP BY id")}
    assert len(ids) == 300
    assert len(clickhouse.rows("SELECT id FROM event_log ORDER BY id")) == 300
    assert clickhouse.arrow("SELECT id FROM event_log").num_rows == 300
    assert ask_stored_positions(clickhouse, world.stream, world.outbox, Lsn(0)).rows == 300
    newest = newest_epoch(clickhouse, world.settings, "stream")
    assert newest is not None
    assert newest.owner == "me"


def rows_with_equal_keys_are_returned(clickhouse: ClickHouse, _world: World) -> None:
    clickhouse.command("CREATE TABLE replacing (id Int64) ENGINE = ReplacingMergeTree ORDER BY id")
    clickhouse.command("SYSTEM STOP MERGES replacing")
    for _ in range(2):
        clickhouse.command("INSERT INTO replacing (id) VALUES (7)")
    assert len(clickhouse.rows("SELECT id FROM replacing")) == 2


def a_fence_without_an_owner_refuses(clickhouse: ClickHouse, world: World) -> None:
    with pytest.raises(FatalError) as caught:
        put(clickhouse, world, batch_of(world, rows(3)))
    assert caught.value.code == 395


def rows_of_another_batch_are_seen(clickhouse: ClickHouse, world: World) -> None:
    own(world)
    batch = batch_of(world, rows(300))
    put(clickhouse, world, batch)
    with pytest.raises(EpochOverError):
        put(clickhouse, world, batch, token="f" * 32)
    assert world.stored() == 300


def a_token_is_stored_once(clickhouse: ClickHouse, world: World) -> None:
    own(world)
    batch = batch_of(world, rows(300, months=12))
    for _ in range(2):
        put_by_token(clickhouse, world, batch)
    assert world.stored() == 300


def _view(world: World, query: str) -> None:
    world.clickhouse.command(
        "CREATE TABLE target (id Int64) ENGINE = MergeTree ORDER BY id "
        "SETTINGS non_replicated_deduplication_window = 99"
    )
    world.clickhouse.command(f"CREATE MATERIALIZED VIEW view TO target AS {query}")


def a_view_has_a_batch_once(clickhouse: ClickHouse, world: World) -> None:
    own(world)
    _view(world, "SELECT id FROM event_log")
    batch = batch_of(world, rows(300))
    for _ in range(2):
        put_by_token(clickhouse, world, batch)
    assert world.ch("SELECT count() FROM target") == 300


def a_view_that_fails_fails_the_insert(clickhouse: ClickHouse, world: World) -> None:
    own(world)
    _view(world, "SELECT toInt64(environment) AS id FROM event_log")
    with pytest.raises(PipelineError):
        put(clickhouse, world, batch_of(world, rows(3)))


def null_is_refused(clickhouse: ClickHouse, world: World) -> None:
    own(world)
    bad = rows(1).set_column(1, field("event_type", pa.binary(), "Nullable(String)"), pa.array([None], pa.binary()))
    with pytest.raises(PoisonError):
        put(clickhouse, world, batch_of(world, bad))
    assert world.stored() == 0


def a_text_that_is_no_address_is_refused(clickhouse: ClickHouse, world: World) -> None:
    own(world)
    world.clickhouse.command("ALTER TABLE event_log ADD COLUMN address IPv4")
    bad = rows(1).append_column(field("address", pa.binary(), "String"), pa.array([b"x"]))
    with pytest.raises(PoisonError):
        put(clickhouse, world, batch_of(world, bad))


def deleted_rows_stay_hidden(clickhouse: ClickHouse, world: World) -> None:
    own(world)
    put(clickhouse, world, batch_of(world, rows(30)))
    world.clickhouse.command("DELETE FROM event_log WHERE id < 10", settings={"lightweight_deletes_sync": 2})
    assert len(clickhouse.rows("SELECT id FROM event_log")) == 20


def means(query: str, value: object, clickhouse: ClickHouse, _world: World) -> None:
    assert list(clickhouse.rows(query)) == [(value,)]


_UNIX = "SELECT toUnixTimestamp(toDateTime('1970-01-02 00:00:00'))"
_TEXT = "SELECT toString(toDateTime('2 Jan 2026', 'UTC'))"
_IN = "SELECT count() FROM numbers(100000) WHERE number IN (SELECT number FROM numbers(100000))"
_JOIN = "SELECT b.x FROM (SELECT 1 AS a) AS l LEFT JOIN (SELECT 2 AS a, 3 AS x) AS b USING (a)"

# One setting of a profile, or two that belong together, and what it must not change.
BENT: list[tuple[dict[str, str], Callable[..., None]]] = [
    ({"limit": "2"}, every_row_is_returned),
    ({"max_rows_to_read": "100", "read_overflow_mode": "break"}, every_row_is_returned),
    ({"max_result_rows": "10", "result_overflow_mode": "break"}, every_row_is_returned),
    ({"max_rows_to_group_by": "10", "group_by_overflow_mode": "any"}, every_row_is_returned),
    ({"max_rows_to_sort": "10", "sort_overflow_mode": "break"}, every_row_is_returned),
    ({"max_rows_in_distinct": "10", "distinct_overflow_mode": "break"}, every_row_is_returned),
    ({"additional_table_filters": "{'event_log': 'id < 5'}"}, every_row_is_returned),
    ({"max_partitions_per_insert_block": "1"}, every_row_is_returned),
    ({"final": "1"}, rows_with_equal_keys_are_returned),
    ({"empty_result_for_aggregation_by_empty_set": "1"}, a_fence_without_an_owner_refuses),
    ({"aggregate_functions_null_for_empty": "1"}, a_fence_without_an_owner_refuses),
    ({"max_rows_in_set": "10", "set_overflow_mode": "break"}, partial(means, _IN, 100_000)),
    ({"additional_table_filters": "{'event_log': 'id < 0'}"}, rows_of_another_batch_are_seen),
    ({"deduplicate_insert_select": "disable"}, a_token_is_stored_once),
    (dict.fromkeys(("deduplicate_insert", "deduplicate_insert_select"), "disable"), a_token_is_stored_once),
    ({"deduplicate_blocks_in_dependent_materialized_views": "0"}, a_view_has_a_batch_once),
    ({"materialized_views_ignore_errors": "1"}, a_view_that_fails_fails_the_insert),
    ({"insert_null_as_default": "1"}, null_is_refused),
    ({"cast_ipv4_ipv6_default_on_conversion_error": "1"}, a_text_that_is_no_address_is_refused),
    ({"apply_deleted_mask": "0"}, deleted_rows_stay_hidden),
    ({"session_timezone": "Asia/Tokyo"}, partial(means, _UNIX, 86400)),
    ({"cast_string_to_date_time_mode": "basic"}, partial(means, _TEXT, "2026-01-02 00:00:00")),
    ({"transform_null_in": "1"}, partial(means, "SELECT NULL IN (NULL)", None)),
    ({"join_use_nulls": "1"}, partial(means, _JOIN, 0)),
    ({"cast_keep_nullable": "1"}, partial(means, "SELECT toTypeName(CAST(toNullable(1), 'Int8'))", "Int8")),
    ({"prefer_column_name_to_alias": "1"}, partial(means, "SELECT a + 1 AS a FROM (SELECT 1 AS a) WHERE a = 2", 2)),
]  # fmt: skip


@pytest.mark.parametrize("pins", ["pinned", pytest.param("not pinned", marks=pytest.mark.thorough)])
@pytest.mark.parametrize(("bent", "check"), BENT, ids=lambda value: "+".join(value) if isinstance(value, dict) else "")
def test_a_profile_does_not_change_what_a_statement_means(
    world: World, monkeypatch: pytest.MonkeyPatch, bent: dict[str, str], check: Callable[..., None], pins: str
) -> None:
    with (
        proxy_before(world.env["OUTHAUL_CLICKHOUSE_URL"], Rules(change=partial(add, bent))) as url,
        ClickHouse(url, timeout_s=30) as clickhouse,
    ):
        if pins == "pinned":
            refused = None
            try:
                check(clickhouse, world)
            except FatalError as error:
                refused = error
            # A limit of the profile may end the statement; then the error names it.
            assert refused is None or (refused.code in {158, 191, 307, 396} and "Raise the limit" in refused.todo)
        else:
            monkeypatch.setattr(pinned_settings, "PINNED", tuple(one for one in PINNED if one.name not in bent))
            for name in ("settings", "_settings_of"):
                # The insert names some of the settings itself.
                monkeypatch.setattr(inserting, name, partial(_without, getattr(inserting, name), set(bent)))
            with pytest.raises((AssertionError, PipelineError, pytest.fail.Exception)):
                check(clickhouse, world)


def _without(make: Callable[..., dict[str, Any]], names: set[str], *args: Any) -> dict[str, Any]:
    return {name: value for name, value in make(*args).items() if name not in names}


def test_every_pinned_setting_exists(world: World) -> None:
    """A name that is misspelt would be left out, as one that an older server does not have."""
    listed = {name for (name,) in world.clickhouse.rows("SELECT name FROM system.settings")}
    assert {one.name for one in PINNED} <= listed


def test_the_list_of_settings_is_asked_for_once(world: World) -> None:
    own(world)
    rules = Rules()
    with proxy_before(world.env["OUTHAUL_CLICKHOUSE_URL"], rules) as url, ClickHouse(url, timeout_s=30) as clickhouse:
        clickhouse.rows("SELECT 1")
        begun = len(rules.seen)
        for number in range(3):
            put(clickhouse, world, batch_of(world, rows(3, lsn=500 + number)))
        assert len(rules.seen) - begun == 3


def test_the_clients_of_a_process_ask_once_for_the_names(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clickhouse_module, "_SERVERS", {})
    rules = Rules()
    asked: list[int] = []
    with proxy_before(world.env["OUTHAUL_CLICKHOUSE_URL"], rules) as url:
        for _ in range(2):
            with ClickHouse(url, timeout_s=30) as clickhouse:
                clickhouse.rows("SELECT 1")
            asked.append(len(rules.seen) - sum(asked))
    assert asked[0] - asked[1] == 1


def test_a_setting_that_one_of_two_servers_lacks_is_left_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list came from a newer server; the statement goes to an older one behind the same address."""
    newer = pinned_settings.Pinned("of_a_newer_release", 1, pinned_settings.On.ALL, "unknown to the older one")
    monkeypatch.setattr(pinned_settings, "PINNED", (newer, *PINNED))
    with ClickHouse(world.env["OUTHAUL_CLICKHOUSE_URL"], timeout_s=30) as clickhouse:
        clickhouse.rows("SELECT 1")
        assert clickhouse._server.known is not None
        clickhouse._server.known |= {"of_a_newer_release"}
        assert clickhouse.rows("SELECT 2") == [(2,)]
        assert "of_a_newer_release" not in clickhouse._server.known
        with pytest.raises(FatalError, match="Unknown setting 'mistaken'"):
            clickhouse.rows("SELECT 1 SETTINGS mistaken = 1")


# Proxies


def _known(pairs: Pairs, *, parameters: bool = True) -> Pairs:
    """Keep what a proxy for ClickHouse knows (chproxy), and no setting."""
    names = {"query", "database", "default_format", "query_id", "compress", "enable_http_compression"}
    return [(name, value) for name, value in pairs if name in names or (parameters and name.startswith("param_"))]


def test_a_proxy_that_keeps_only_parameters_it_knows_changes_nothing(world: World) -> None:
    with (
        proxy_before(world.env["OUTHAUL_CLICKHOUSE_URL"], Rules(change=_known)) as url,
        ClickHouse(url, timeout_s=30) as clickhouse,
    ):
        a_token_is_stored_once(clickhouse, world)
        query = "SELECT Settings['log_comment'] FROM system.processes WHERE query LIKE '%here I am%'"
        assert clickhouse.rows(query, settings={"log_comment": "here I am"})[0][0] == "here I am"
        null_is_refused_after(clickhouse, world)


def null_is_refused_after(clickhouse: ClickHouse, world: World) -> None:
    bad = rows(1, lsn=900).set_column(
        1, field("event_type", pa.binary(), "Nullable(String)"), pa.array([None], pa.binary())
    )
    with pytest.raises(PoisonError):
        put(clickhouse, world, batch_of(world, bad))


def test_a_proxy_that_takes_the_values_away_makes_an_error(world: World) -> None:
    own(world)
    with (
        proxy_before(world.env["OUTHAUL_CLICKHOUSE_URL"], Rules(change=partial(_known, parameters=False))) as url,
        ClickHouse(url, timeout_s=30) as clickhouse,
        pytest.raises(FatalError, match=r"param_\*"),
    ):
        put(clickhouse, world, batch_of(world, rows(3)))


def test_a_proxy_that_takes_the_database_away_changes_nothing(world: World) -> None:
    own(world)

    def take(pairs: Pairs) -> Pairs:
        return [pair for pair in pairs if pair[0] != "database"]

    with (
        proxy_before(world.env["OUTHAUL_CLICKHOUSE_URL"], Rules(change=take)) as url,
        ClickHouse(url, timeout_s=30) as clickhouse,
    ):
        put(clickhouse, world, batch_of(world, rows(3)))
    assert world.stored() == 3


def test_an_outbox_of_many_columns_does_not_make_the_url_long(world: World) -> None:
    own(world)
    records = rows(3)
    for number in range(150):
        name = f"a_column_with_a_long_name_{number}"
        world.clickhouse.command(f"ALTER TABLE event_log ADD COLUMN {name} Int64")
        records = records.append_column(field(name, pa.int64(), "Int64"), pa.array([1, 2, 3]))
    rules = Rules(refuse=lambda target, _size: 414 if len(target) > 2048 else None)
    with proxy_before(world.env["OUTHAUL_CLICKHOUSE_URL"], rules) as url, ClickHouse(url, timeout_s=30) as clickhouse:
        put(clickhouse, world, batch_of(world, records))
    assert world.stored() == 3


@pytest.mark.parametrize("limit", [20_000, 12_000])
def test_a_batch_that_is_too_large_for_a_proxy_is_divided(world: World, limit: int) -> None:
    own(world)
    batch = batch_of(world, _wide(8))
    rules = Rules(refuse=lambda _target, size: 413 if size > limit else None)
    with proxy_before(world.env["OUTHAUL_CLICKHOUSE_URL"], rules) as url, ClickHouse(url, timeout_s=30) as clickhouse:

        def store(part: Any, payload: bytes) -> None:
            inserting.insert(clickhouse, part, payload, target_of(world))

        with pytest.raises(TooLargeError, match="answers HTTP 413"):
            store(message_of(world, batch), batch.payload)
        assert set_aside(message_of(world, batch), batch.payload, store, dead_letters=TABLES[1]) == 0
        assert world.stored() == 8
        huge = batch_of(world, _wide(1, lsn=900, size=30_000))
        with pytest.raises(FatalError, match=r"the event at 0/384#0 with id 0 is too large") as caught:
            set_aside(message_of(world, huge), huge.payload, store, dead_letters=TABLES[1])
    assert "client_max_body_size" in caught.value.todo


def _wide(count: int, lsn: int = 500, size: int = 5000) -> pa.RecordBatch:
    dice = random.Random(1)
    texts = [dice.randbytes(size // 2).hex().encode() for _ in range(count)]
    return rows(count, lsn=lsn).set_column(4, field("event_context", pa.binary(), "Nullable(String)"), pa.array(texts))


@pytest.mark.parametrize(("status", "kind"), [(502, TransientError), (404, FatalError), (414, FatalError)])
def test_an_answer_of_a_proxy_is_named_for_reads_and_inserts(world: World, status: int, kind: type) -> None:
    own(world)
    rules = Rules()
    with proxy_before(world.env["OUTHAUL_CLICKHOUSE_URL"], rules) as url, ClickHouse(url, timeout_s=30) as clickhouse:
        clickhouse.rows("SELECT 1")
        rules.refuse = lambda _target, _size: status
        for ask in (partial(put, clickhouse, world, batch_of(world, rows(3))), partial(clickhouse.rows, "SELECT 1")):
            with pytest.raises(kind, match=f"HTTP {status}"):
                ask()
        # What answers next may be a server of another version.
        assert (clickhouse._server.known is None) == (kind is TransientError)


def test_a_page_in_place_of_an_answer_is_no_success(world: World) -> None:
    own(world)
    rules = Rules()
    with proxy_before(world.env["OUTHAUL_CLICKHOUSE_URL"], rules) as url, ClickHouse(url, timeout_s=30) as clickhouse:
        clickhouse.rows("SELECT 1")
        rules.refuse = lambda _target, _size: 200
        with pytest.raises(FatalError, match="answers an INSERT with"):
            put(clickhouse, world, batch_of(world, rows(3)))


def test_an_error_after_the_first_bytes_of_an_answer_is_no_success(world: World) -> None:
    """So ClickHouse answers if the request to hold the answer back was lost on the way."""
    own(world)
    rules = Rules(page=b"Code: 241. DB::Exception: Memory limit exceeded. (MEMORY_LIMIT_EXCEEDED) (version 26.5.1.1)")
    with proxy_before(world.env["OUTHAUL_CLICKHOUSE_URL"], rules) as url, ClickHouse(url, timeout_s=30) as clickhouse:
        clickhouse.rows("SELECT 1")
        rules.refuse = lambda _target, _size: 200
        with pytest.raises(TransientError, match="Memory limit exceeded") as caught:
            put(clickhouse, world, batch_of(world, rows(3)))
    assert caught.value.code == 241


# Profiles of the server itself

_USERS = """<clickhouse>
<profiles><default><implicit_select>0</implicit_select><max_threads>1</max_threads>{profile}</default></profiles>
<users><default><password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota></default>
</users><quotas><default/></quotas></clickhouse>"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Start an engine whose user has a profile; return its URL."""
    stack = Stack(tmp_path)

    def start(profile: str) -> str:
        if "readonly>1" in profile:
            # The engine creates its database at the first start.
            stack.up(["clickhouse"])
            stack.down()
        home = tmp_path / "clickhouse"
        home.mkdir(exist_ok=True)
        (home / "config.xml").write_text("<clickhouse><users_config>users.xml</users_config></clickhouse>")
        (home / "users.xml").write_text(_USERS.format(profile=profile))
        stack.up(["clickhouse"])
        return stack.env()["OUTHAUL_CLICKHOUSE_URL"]

    yield start
    stack.down()


def _elements(settings: dict[str, str]) -> str:
    return "".join(f"<{name}>{value}</{name}>" for name, value in settings.items())


def test_the_promise_holds_under_a_profile_that_bends_everything(served: Callable[[str], str]) -> None:
    bent: dict[str, str] = {}
    for settings, _ in BENT:
        # The front and the driver read more rows than these limits when they start.
        bent |= {name: value for name, value in settings.items() if not name.startswith("max_rows")}
    bent["additional_table_filters"] = "{'outhaul.event_log': 'id &lt; 5'}"
    with _place(served(_elements(bent))) as place:
        every_row_is_returned(place.clickhouse, place)
        a_token_is_stored_once(place.clickhouse, place)


@pytest.mark.parametrize(
    ("profile", "setting", "todo"),
    [
        ("<readonly>1</readonly>", "readonly mode", "ALTER USER"),
        ("<limit>5</limit><constraints><limit><readonly/></limit></constraints>", "limit", "settings_profile_elements"),
        (
            "<constraints><max_execution_time><max>3</max></max_execution_time></constraints>",
            "max_execution_time",
            "settings_profile_elements",
        ),
    ],
)
def test_a_setting_that_the_user_may_not_change_is_named(
    world: World, served: Callable[[str], str], profile: str, setting: str, todo: str
) -> None:
    with ClickHouse(served(profile), timeout_s=30) as clickhouse, pytest.raises(FatalError, match=setting) as caught:
        put(clickhouse, world, batch_of(world, rows(3)))
    assert caught.value.exit_code == Exit.CLICKHOUSE_REFUSED
    assert todo in caught.value.todo


def test_a_setting_that_may_not_be_changed_and_has_our_value_is_no_error(served: Callable[[str], str]) -> None:
    url = served("<constraints><limit><readonly/></limit><final><readonly/></final></constraints>")
    with _place(url) as place:
        every_row_is_returned(place.clickhouse, place)
