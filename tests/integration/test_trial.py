"""The trials on a real engine: each thing that outhaul relies on is missed, and what has passed is not tried again."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from outhaul.cdc_reader.operate.doctor import clickhouse_checks
from outhaul.cdc_reader.operate.doctor.finding import State
from outhaul.cdc_reader.operate.setup import apply_clickhouse
from outhaul.deploy.local.stack import Stack
from outhaul.sink import trial
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import Exit, FatalError, PipelineError
from outhaul.sink.settings import load_from
from outhaul.sink.trial_checks import ENDS_US
from tests.clickhouse_pair import pair_of
from tests.clickhouse_proxy import Pairs, Rules, proxy_before
from tests.integration.doctor_findings import make_tables, of_clickhouse
from tests.remote_clickhouse import RemoteStack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from outhaul.sink.settings import Settings
    from tests.conftest import World

# The promise is a second; a machine on which much else runs takes longer.
WITHIN_S = 1.0 * 10


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A pipeline whose reader runs its trials."""
    return make_world(trials=True)


def tries(world: World) -> int:
    """How often the trials have run."""
    return int(world.ch("SELECT uniqExact(run) FROM event_log_trial WHERE number > 0 AND proof = ''"))


def results(world: World) -> dict[str, str | PipelineError]:
    return trial.results(world.clickhouse, world.settings)


def failed(world: World) -> dict[str, str]:
    """The trials that fail, and why."""
    return {name: str(found) for name, found in results(world).items() if isinstance(found, PipelineError)}


def refusal(world: World) -> str:
    with pytest.raises(FatalError) as caught:
        trial.ensure(world.clickhouse, world.settings)
    assert caught.value.exit_code is Exit.CLICKHOUSE_TABLE
    assert caught.value.todo
    return caught.value.message


def test_an_ordinary_server_passes_and_is_tried_again_when_something_has_changed(world: World) -> None:
    begun_at = time.monotonic()
    trial.ensure(world.clickhouse, world.settings)
    assert time.monotonic() - begun_at < WITHIN_S
    assert tries(world) == 1
    trial.ensure(world.clickhouse, world.settings)
    assert tries(world) == 1
    for change in (
        "ALTER TABLE event_log ADD COLUMN amount Nullable(Int64)",
        "ALTER TABLE event_log MODIFY SETTING non_replicated_deduplication_window = 2000",
    ):
        before = tries(world)
        world.clickhouse.command(change)
        trial.ensure(world.clickhouse, world.settings)
        assert tries(world) == before + 1


def test_another_pipeline_of_the_same_table_needs_no_trial_of_its_own(world: World) -> None:
    trial.ensure(world.clickhouse, world.settings)
    other = load_from(world.env | {"OUTHAUL_SOURCE": "other", "OUTHAUL_SLOT": "other"})
    trial.ensure(world.clickhouse, other)
    assert tries(world) == 1


def test_a_table_that_forgets_tokens_is_found(world: World) -> None:
    world.clickhouse.command("ALTER TABLE event_log_trial MODIFY SETTING non_replicated_deduplication_window = 0")
    assert "the table 'event_log_trial' has" in refusal(world)
    assert set(failed(world)) == {"tokens"}
    assert "would be stored twice" in of_clickhouse(world)["trial of tokens"].found


def test_a_view_s_target_that_forgets_tokens_is_found(world: World) -> None:
    world.clickhouse.command(
        "ALTER TABLE event_log_trial_copies MODIFY SETTING non_replicated_deduplication_window = 0"
    )
    assert "the view 'event_log_trial_view' has 4 of them" in refusal(world)


def test_a_view_that_does_not_get_its_rows_is_found(world: World) -> None:
    world.clickhouse.command("DROP VIEW event_log_trial_view SYNC")
    world.clickhouse.command(
        "CREATE MATERIALIZED VIEW event_log_trial_view TO event_log_trial_copies AS "
        "SELECT run, number FROM event_log_trial WHERE number > 0"
    )
    assert "it has 1 of 2" in refusal(world)


def test_the_tables_of_the_trials_are_asked_for_by_name(world: World) -> None:
    world.clickhouse.command("DROP VIEW event_log_trial_view SYNC")
    assert "'event_log_trial_view'" in refusal(world)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["Date", "Date32", "DateTime('UTC')", "DateTime64(9, 'UTC')"])
def test_a_column_that_cannot_store_a_time_of_the_range_is_found(make_world: Callable[..., World], kind: str) -> None:
    world = make_world(setup=False)
    make_tables(world, engine="MergeTree", event_date_time=kind)
    if kind == "DateTime64(9, 'UTC')":
        # It refuses the last time, which becomes a dead letter; nothing is stored that would not be found.
        assert failed(world) == {}
        return
    assert f"the column event_date_time of 'event_log' is {kind}" in refusal(world)
    assert set(failed(world)) == {"times"}
    assert of_clickhouse(world)["trial of times"].state is State.FAIL


def test_a_column_of_milliseconds_is_precise_enough(make_world: Callable[..., World]) -> None:
    world = make_world(setup=False)
    make_tables(world, engine="MergeTree", event_date_time="DateTime64(3, 'UTC')")
    assert failed(world) == {}


@pytest.mark.thorough
def test_two_servers_that_know_nothing_of_each_other_are_found(world: World, tmp_path: Path) -> None:
    if isinstance(world.stack, RemoteStack):
        pytest.skip("needs two embedded engines: two servers elsewhere may be replicas")
    other = Stack(tmp_path)
    other.up(["clickhouse"])
    with ExitStack() as opened:
        opened.callback(other.down)
        url = other.env()["OUTHAUL_CLICKHOUSE_URL"]
        pair = opened.enter_context(pair_of(world.env["OUTHAUL_CLICKHOUSE_URL"], url, world.settings.source))
        with pair.client(2) as second:
            apply_clickhouse(second, world.settings, lambda _: None)
        settings = load_from(world.env | {"OUTHAUL_CLICKHOUSE_URL": pair.url(world.settings.source)})
        with ClickHouse.of(settings, timeout_s=10) as clickhouse:
            found = trial.results(clickhouse, settings)
            with pytest.raises(FatalError):
                trial.ensure(clickhouse, settings)
            assert "several servers" in str(found["one server"])
            assert "system.processes" in str(found["running queries"])
            pair.node = 1
            assert all(isinstance(one, str) for one in trial.results(clickhouse, settings).values())


BATCH = "INSERT INTO event_log (id, event_type, event_date_time, cdc_batch) VALUES (1, 'tested', now64(6), {})"


def test_a_table_that_was_replaced_is_refused_until_its_rows_are_of_no_batch(world: World) -> None:
    """It has none of the tokens of its batches, as a table that was restored from a backup."""
    trial.ensure(world.clickhouse, world.settings)
    world.clickhouse.command(BATCH.format(7))
    trial.ensure(world.clickhouse, world.settings)
    world.clickhouse.command("CREATE TABLE event_log_new AS event_log")
    world.clickhouse.command("ALTER TABLE event_log_new ATTACH PARTITION ALL FROM event_log")
    world.clickhouse.command("EXCHANGE TABLES event_log AND event_log_new")
    with pytest.raises(FatalError, match="was restored from a backup or exchanged") as caught:
        trial.ensure(world.clickhouse, world.settings)
    assert set(failed(world)) == {"same tables"}
    world.clickhouse.command(caught.value.todo.split("  --")[0])
    for _ in range(2):
        trial.ensure(world.clickhouse, world.settings)
        world.clickhouse.command(BATCH.format(8))
    assert world.stored() == 3


def test_a_new_table_without_batches_may_replace_the_old_one(world: World) -> None:
    trial.ensure(world.clickhouse, world.settings)
    world.clickhouse.command(BATCH.format(7))
    world.clickhouse.command("CREATE TABLE event_log_new AS event_log")
    world.clickhouse.command("EXCHANGE TABLES event_log AND event_log_new")
    world.clickhouse.command(BATCH.format(0))
    trial.ensure(world.clickhouse, world.settings)


def only_known(pairs: Pairs) -> Pairs:
    """What a proxy leaves of a URL if it passes on only what it knows."""
    return [pair for pair in pairs if pair[0] in {"database", "query"}]


def test_a_proxy_that_strips_parameters_is_named(world: World) -> None:
    with proxy_before(world.env["OUTHAUL_CLICKHOUSE_URL"], Rules(change=only_known)) as url:
        settings = load_from(world.env | {"OUTHAUL_CLICKHOUSE_URL": url})
        with ClickHouse.of(settings, timeout_s=10) as clickhouse, pytest.raises(FatalError, match="param") as caught:
            trial.ensure(clickhouse, settings)
    assert "proxy" in caught.value.todo


def test_both_ends_of_the_range_are_those_that_the_reader_sends() -> None:
    ends = tuple((end - clickhouse_checks._EPOCH) // clickhouse_checks._MICROSECOND for end in clickhouse_checks._ENDS)
    assert ends == ENDS_US


_USERS = """<clickhouse>
<profiles><default>{profile}</default></profiles>
<quotas><default/></quotas>
<users><default>
<password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
<databases><outhaul>{policies}</outhaul></databases>
</default></users>
</clickhouse>"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[..., tuple[ClickHouse, Settings]]]:
    """Start an engine whose user has a profile and row policies, with the tables of a pipeline."""
    with ExitStack() as opened:

        def start(*, profile: str = "", policies: str = "") -> tuple[ClickHouse, Settings]:
            home = tmp_path / "clickhouse"
            home.mkdir()
            (home / "config.xml").write_text("<clickhouse><users_config>users.xml</users_config></clickhouse>")
            (home / "users.xml").write_text(_USERS.format(profile=profile, policies=policies))
            stack = Stack(tmp_path)
            stack.up(["clickhouse"])
            opened.callback(stack.down)
            settings = load_from({"OUTHAUL_CLICKHOUSE_URL": stack.env()["OUTHAUL_CLICKHOUSE_URL"]})
            clickhouse = opened.enter_context(ClickHouse.of(settings, timeout_s=10))
            apply_clickhouse(clickhouse, settings, lambda _: None)
            return clickhouse, settings

        yield start


STORE = (
    "INSERT INTO event_log (id, event_type, event_date_time, cdc_source, cdc_lsn) "
    "SELECT 1, 'tested', now64(6), 'outhaul', number FROM numbers(2)"
)


@pytest.mark.parametrize(
    ("condition", "shown"),
    [
        ("cdc_lsn % 2 = 0", "equals(modulo(cdc_lsn"),
        ("cdc_source = 'another'", "'another'"),
        ("0", "0"),
        ("1", ""),
        ("cdc_source = 'outhaul'", ""),
    ],
)
def test_a_row_policy_that_hides_rows_is_found_when_there_are_rows(
    served: Callable[..., tuple[ClickHouse, Settings]], condition: str, shown: str
) -> None:
    clickhouse, settings = served(policies=f"<event_log><filter>{condition}</filter></event_log>")
    # This user may not see the list of policies, and the plan of a query shows none for a table without rows.
    trial.ensure(clickhouse, settings)
    clickhouse.command(STORE)
    if not shown:
        trial.ensure(clickhouse, settings)
        return
    with pytest.raises(FatalError, match="a row policy hides rows of 'event_log'") as caught:
        trial.ensure(clickhouse, settings)
    assert shown in caught.value.message


def test_a_row_policy_that_hides_the_rows_of_the_trial_is_found_before_the_first_event(
    served: Callable[..., tuple[ClickHouse, Settings]],
) -> None:
    clickhouse, settings = served(policies="<event_log_trial><filter>number = 0</filter></event_log_trial>")
    with pytest.raises(FatalError, match="2 rows were stored in 'event_log_trial', and 1 are found"):
        trial.ensure(clickhouse, settings)


@pytest.mark.parametrize(
    "profile",
    [
        "<insert_deduplicate>0</insert_deduplicate>",
        "<deduplicate_insert>disable</deduplicate_insert>",
        "<deduplicate_insert_select>disable</deduplicate_insert_select>",
        "<deduplicate_blocks_in_dependent_materialized_views>0</deduplicate_blocks_in_dependent_materialized_views>",
    ],
)
def test_a_profile_without_deduplication_is_overruled_or_found(
    served: Callable[..., tuple[ClickHouse, Settings]], profile: str
) -> None:
    clickhouse, settings = served(profile=profile)
    found = trial.results(clickhouse, settings)["tokens"]
    ((rows, copies),) = clickhouse.rows(
        "SELECT (SELECT count() FROM event_log_trial WHERE run NOT LIKE '% %'), "
        "(SELECT count() FROM event_log_trial_copies WHERE run NOT LIKE '% %')"
    )
    if isinstance(found, str):
        assert (rows, copies) == (2, 2)
    else:
        assert "would be stored twice" in found.message
        assert rows > 2 or copies > 2


def test_a_profile_that_does_not_let_outhaul_deduplicate_is_named(
    served: Callable[..., tuple[ClickHouse, Settings]],
) -> None:
    fixed = "<constraints><insert_deduplicate><readonly/></insert_deduplicate></constraints>"
    clickhouse, settings = served(profile=f"<insert_deduplicate>0</insert_deduplicate>{fixed}")
    with pytest.raises(PipelineError, match="insert_deduplicate"):
        trial.ensure(clickhouse, settings)
