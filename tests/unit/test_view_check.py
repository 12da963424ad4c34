"""Which materialized views get each event exactly once, what to type about the others, and who is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.operate.doctor import view_checks
from outhaul.cdc_reader.operate.doctor.finding import State
from outhaul.cdc_reader.session.view_watch import ViewWatch
from outhaul.sink.errors import TransientError
from outhaul.sink.schema import Table
from outhaul.sink.settings import Settings
from outhaul.sink.view_check import Flaw, flaw_of, is_accepted
from outhaul.sink.views import TableName, View

WINDOW = "non_replicated_deduplication_window"
VIEW = View(
    name=TableName("logs", "per_type"),
    source=TableName("logs", "event_log"),
    target=TableName("stats", "types`s"),
    table=Table(
        "types`s", "MergeTree", "MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 800", "", "n"
    ),
    as_select="SELECT 1 FROM logs.event_log",
    depth=1,
)
EVENTS = Table("event_log", "MergeTree", f"MergeTree ORDER BY id SETTINGS {WINDOW} = 800", "", "id")


def with_target(engine: str, settings: str = "") -> View:
    return replace(VIEW, table=Table("types`s", engine, f"{engine} ORDER BY n SETTINGS {settings}", "", "n"))


@pytest.mark.parametrize(
    ("engine", "settings", "is_exact"),
    [
        ("MergeTree", "", False),
        ("MergeTree", "non_replicated_deduplication_window = 799", False),
        ("MergeTree", "non_replicated_deduplication_window = 800", True),
        ("MergeTree", "replicated_deduplication_window = 900", False),
        ("SummingMergeTree", "non_replicated_deduplication_window = 900", True),
        ("AggregatingMergeTree", "", False),
        ("ReplicatedSummingMergeTree", "", False),
        ("ReplicatedSummingMergeTree", "replicated_deduplication_window_seconds = 604800", True),
        ("ReplicatedMergeTree", "replicated_deduplication_window = 0", False),
        ("SharedMergeTree", "replicated_deduplication_window_seconds = 604800", True),
        ("Null", "", True),
        ("Memory", "", False),
        ("Log", "", False),
        ("Kafka", "", False),
        ("Distributed", "", False),
        ("Buffer", "", False),
        ("Merge", "non_replicated_deduplication_window = 100", False),
    ],
)
def test_a_view_is_exact_if_its_target_remembers_tokens_as_long_as_the_event_table(
    engine: str, settings: str, is_exact: bool
) -> None:
    flaw = flaw_of(with_target(engine, settings), EVENTS)
    assert (flaw is None) is is_exact
    if flaw and engine.endswith("MergeTree"):
        own = "replicated_" if engine.startswith(("Replicated", "Shared")) else "non_replicated_"
        assert flaw.todo.startswith(f"ALTER TABLE `stats`.`types\\`s` MODIFY SETTING {own}deduplication_window = 10000")
    elif flaw:
        assert engine in flaw.why
        assert "OUTHAUL_VIEWS_NOT_EXACT=logs.per_type" in flaw.todo


def test_a_refreshable_view_is_no_concern() -> None:
    assert flaw_of(replace(with_target("Memory"), is_refreshable=True), EVENTS) is None


def test_what_this_user_cannot_see_is_named_with_the_grant() -> None:
    hidden = flaw_of(replace(VIEW, table=None, target=None, engine=""), EVENTS)
    no_target = flaw_of(replace(VIEW, table=None), EVENTS)
    assert hidden is not None
    assert no_target is not None
    assert "GRANT SHOW TABLES ON `logs`.`per_type`" in hidden.todo
    assert "GRANT SHOW TABLES ON `stats`.`types\\`s`" in no_target.todo
    assert "stats.types`s does not exist" in no_target.why


def test_another_kind_of_view_that_gets_inserts_is_not_exact() -> None:
    flaw = flaw_of(replace(VIEW, engine="WindowView", target=None, table=None), EVENTS)
    assert flaw is not None
    assert flaw.why == "it is a WindowView"


@pytest.mark.parametrize(
    ("names", "accepted"),
    [("per_type", True), ("logs.per_type", True), ("a, per_type ,b", True), ("stats.per_type", False), ("", False)],
)
def test_a_view_is_accepted_by_its_name_with_or_without_the_database(names: str, accepted: bool) -> None:
    assert is_accepted(VIEW.name, Settings(views_not_exact=names)) is accepted


@pytest.mark.parametrize(
    ("view", "names", "state"),
    [
        (VIEW, "", State.PASS),
        (with_target("Memory"), "", State.FAIL),
        (with_target("Memory"), "per_type", State.WARN),
        (with_target("MergeTree"), "", State.FAIL),
        (with_target("MergeTree"), "logs.per_type", State.WARN),
    ],
)
def test_doctor_finds_what_stops_the_reader_and_what_is_accepted(view: View, names: str, state: State) -> None:
    (finding,) = view_checks.judge([view], EVENTS, Settings(views_not_exact=names))
    assert finding.state is state


def test_doctor_counts_the_views_that_get_inserts() -> None:
    (none,) = view_checks.judge([replace(VIEW, is_refreshable=True)], EVENTS, Settings())
    (one,) = view_checks.judge([VIEW, replace(VIEW, is_refreshable=True)], EVENTS, Settings())
    assert (none.found, one.found) == ("none", "1 on the event table, each exact")


FLAW = Flaw(VIEW.name, "it is a Log", "DROP VIEW")


class Answers:
    """What ClickHouse answers next, and how often it was asked."""

    def __init__(self) -> None:
        self.flaws: tuple[Flaw, ...] = ()
        self.is_silent = False
        self.asked = 0
        self.now = 100.0

    def ask(self) -> tuple[Flaw, ...]:
        self.asked += 1
        if self.is_silent:
            raise TransientError("no answer")
        return self.flaws


def test_a_view_made_while_the_reader_runs_is_logged_once_within_ten_seconds() -> None:
    answers = Answers()
    watch = ViewWatch(answers.ask, lambda: answers.now)
    with capture_logs() as lines:
        watch.look_if_due()
        answers.flaws = (FLAW,)
        answers.now += 9
        watch.look_if_due()
        assert (answers.asked, lines) == (1, [])
        for _ in range(2):
            answers.now += 30
            watch.look_if_due()
        assert metrics.VIEWS_NOT_EXACT._value.get() == 1
        assert [(line["event"], line["view"], line["todo"]) for line in lines] == [
            ("view_not_exact", "logs.per_type", "DROP VIEW")
        ]
        answers.now, answers.is_silent = answers.now + 30, True
        watch.look_if_due()
        assert metrics.VIEWS_NOT_EXACT._value.get() == 1
        answers.now, answers.is_silent, answers.flaws = answers.now + 30, False, ()
        watch.look_if_due()
        assert metrics.VIEWS_NOT_EXACT._value.get() == 0
        assert len(lines) == 1


def test_the_statement_sets_as_many_tokens_as_a_larger_event_table_remembers() -> None:
    larger = replace(EVENTS, definition=f"MergeTree ORDER BY id SETTINGS {WINDOW} = 20000")
    flaw = flaw_of(VIEW, larger)
    assert flaw is not None
    assert flaw.todo.endswith(f"{WINDOW} = 20000")


def test_a_replicated_event_table_that_forgets_after_an_hour_needs_no_longer_memory_of_a_view() -> None:
    events = Table("event_log", "ReplicatedMergeTree", "ReplicatedMergeTree ORDER BY id", "", "id")
    assert flaw_of(with_target("ReplicatedMergeTree"), events) is None
    assert flaw_of(with_target("MergeTree", f"{WINDOW} = 1000"), events) is None
