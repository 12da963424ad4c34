"""`outhaul dlq`: rows that were refused come back through the sink, once each, or are given up with a trace."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import Exit, FatalError, TransientError
from outhaul.sink.fence import Epoch, raise_epoch, wait_for_older_inserts
from outhaul.sink.letters import dead_letters
from outhaul.sink.letters.restore import restore
from outhaul.sink.letters.retry_message import RetryMessage
from outhaul.sink.letters.retry_task import LetterOutcome, _insert, _insert_all, _types, retry
from outhaul.sink.position import History, Lsn, Position
from tests import launch
from tests.conftest import World, until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

EVERYTHING = dead_letters.Filter(discarded=True)


def outhaul(world: World, *arguments: str, **env: str) -> tuple[int, str, str]:
    done = launch.run(*arguments, env=world.env | env)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def asked(world: World, *arguments: str) -> tuple[int, Any]:
    code, out, _ = outhaul(world, "dlq", *arguments, "--json")
    return code, json.loads(out)


def letters(world: World) -> int:
    return int(world.ch("SELECT count() FROM event_log_dead_letters"))


def mend(world: World, old: str, new: str) -> None:
    world.clickhouse.command(
        f"ALTER TABLE event_log_dead_letters UPDATE row = replaceAll(row, '{old}', '{new}') "
        f"WHERE cdc_source = '{world.settings.source}' SETTINGS mutations_sync = 2"
    )


def insert_at(world: World, *times: str) -> None:
    with world.conn.transaction():
        for at in times:
            world.conn.execute(
                "INSERT INTO outbox (event_type, event_date_time, environment, event_context) "
                "VALUES ('timed', %s, 'test', '{\"a\": \"ü\"}')",
                [at],
            )


def set_aside(world: World, *rows: Mapping[str, str | None]) -> list[Position]:
    """Put letters where a reader would."""
    found = []
    for number, row in enumerate(rows):
        whole = {"event_type": "t", "event_date_time": "2026-01-01 00:00:00+00", "environment": "e", **row}
        text = json.dumps({"id": str(number + 1), "event_context": "{}"} | whole).replace("\\", "\\\\")
        world.clickhouse.command(
            "INSERT INTO event_log_dead_letters (row, reason, cdc_source, cdc_lsn, cdc_ordinal, cdc_committed_at) "
            f"VALUES ('{text}', 'a test', '{world.settings.source}', 700, {number}, '2026-01-01')"
        )
        found.append(Position(Lsn(700), number))
    return found


def order(world: World, positions: list[Position]) -> RetryMessage:
    return RetryMessage(world.settings.source, "event_log", "ab" * 16, tuple(positions))


def test_a_letter_whose_value_was_mended_is_stored_at_its_own_position(running: World) -> None:
    insert_at(running, "2026-01-01Z", "infinity", "0044-03-15 BC")
    until(lambda: letters(running) == 2)
    code, found = asked(running, "list")
    assert (code, found["total"], found["discarded"]) == (0, 2, 0)
    assert {group["letters"] for group in found["by_reason"]} == {1}
    assert [one["row"]["event_date_time"] for one in found["newest"]] == ["0044-03-15 00:00:00+00 BC", "infinity"]
    old, never = (one["position"] for one in found["newest"])
    shown = outhaul(running, "dlq", "show", never)
    assert shown[0] == 0
    assert json.loads(shown[1])["row"]["event_context"] == '{"a": "ü"}'

    code, done = asked(running, "retry", "--all")
    assert (code, done["retried"], sorted(done["refused"])) == (1, [], sorted([old, never]))
    assert letters(running) == 2

    mend(running, '"infinity"', '"2026-01-02 00:00:00.5+00"')
    code, done = asked(running, "retry", never)
    assert (code, done["retried"]) == (0, [never])
    row = running.clickhouse.rows(
        "SELECT id, toString(event_date_time), event_context, metadata_version, event_key, cdc_ordinal, cdc_source, "
        "cdc_committed_at = (SELECT any(cdc_committed_at) FROM event_log WHERE id = 1) FROM event_log WHERE id = 2"
    )
    assert row == [(2, "2026-01-02 00:00:00.500000", '{"a": "ü"}', 1, None, 1, running.settings.source, 1)]
    running.assert_once_each(dead=1)
    assert asked(running, "retry", never) == (1, done | {"retried": [], "unknown": [never]})
    running.pipeline.check()


def test_a_letter_that_is_refused_again_stays_with_the_new_reason(running: World) -> None:
    insert_at(running, "infinity")
    until(lambda: letters(running) == 1)
    mend(running, "infinity", "2300-01-01 00:00:00+00")
    code, done = asked(running, "retry", "--reason", "infinity")
    assert code == 1
    [(position, why)] = done["refused"].items()
    assert why == "event_date_time: 2300-01-01 00:00:00+00 is outside what DateTime64(6, 'UTC') holds"
    _, found = asked(running, "list")
    assert [(one["position"], one["reason"]) for one in found["newest"]] == [(position, why)]
    assert running.stored() == 0


@pytest.mark.thorough
def test_letters_are_stored_whole_once_their_column_was_widened(running: World) -> None:
    running.conn.execute("ALTER TABLE outbox ADD COLUMN due timestamptz, ADD COLUMN raw bytea, ADD COLUMN flag bool")
    running.conn.execute(
        "INSERT INTO outbox (event_type, environment, event_context, due, raw, flag) VALUES "
        "('fine', 'test', '{}', '2026-01-01Z', '\\x01ff', true), ('late', 'test', '{}', 'infinity', '\\x00ff41', true)"
    )
    until(lambda: letters(running) == 1 and running.stored() == 1)
    assert asked(running, "retry", "--all")[0] == 1
    running.clickhouse.command("SYSTEM START MERGES event_log")
    running.clickhouse.command(
        "ALTER TABLE event_log MODIFY COLUMN due Nullable(String)", settings={"mutations_sync": 1}
    )
    code, done = asked(running, "retry", "--all")
    assert (code, len(done["retried"]), letters(running)) == (0, 1, 0)
    assert running.clickhouse.rows("SELECT due, hex(raw), flag FROM event_log WHERE event_type = 'late'") == [
        ("infinity", "00FF41", True)
    ]
    running.insert(3)
    running.assert_once_each()


def test_a_value_that_clickhouse_would_silently_change_or_drop_is_refused(world: World) -> None:
    columns = {
        "small": ("Int8", "300", "-128"),
        "natural": ("UInt64", "-1", "18446744073709551615"),
        "digits": ("Decimal(10, 2)", "1.005", "1.50"),
        "single": ("Float32", "16777217", "0.1"),
        "double": ("Float64", "1e400", "-1e-300"),
        "name": ("UUID", "none", "99999999-8888-4777-8666-555555555555"),
        "address": ("IPv4", "10.0.0.300", "10.0.0.3"),
        "flag": ("Bool", "maybe", "true"),
        "choice": ("Enum8('a', 'b')", "c", "b"),
    }
    for name, (kind, _, _) in columns.items():
        world.clickhouse.command(f"ALTER TABLE event_log ADD COLUMN {name} Nullable({kind})")
    bad = set_aside(world, *({name: bent} for name, (_, bent, _) in columns.items()))
    words = retry(world.clickhouse, world.outbox, order(world, bad))
    assert {word.outcome for word in words} == {LetterOutcome.REFUSED}
    for word, (name, (kind, bent, _)) in zip(words, columns.items(), strict=True):
        assert bent in word.why, word
        # Bool and Enum are refused by ClickHouse itself, with a word.
        assert name in {"flag", "choice"} or (word.why.startswith(f"{name}: {bent} ") and kind in word.why), word
    assert (world.stored(), letters(world)) == (0, len(columns))
    world.clickhouse.command("TRUNCATE TABLE event_log_dead_letters")
    good = set_aside(world, {name: fits for name, (_, _, fits) in columns.items()}, dict.fromkeys(columns))
    words = retry(world.clickhouse, world.outbox, order(world, good))
    assert {word.outcome for word in words} == {LetterOutcome.RETRIED}, words
    kept = world.clickhouse.rows(
        f"SELECT {', '.join(f'toString({name})' for name in columns)} FROM event_log ORDER BY id"
    )
    # A Decimal is printed without zeros at its end.
    assert list(kept[0]) == [fits.removesuffix("0") for _, _, fits in columns.values()]
    assert set(kept[1]) == {None}


def test_a_letter_that_clickhouse_refused_is_stored_once_the_column_takes_it(make_world: Callable[..., World]) -> None:
    world = make_world(context_type="JSON")
    world.pipeline.start("worker", "reader")
    world.conn.execute("INSERT INTO outbox (event_type, environment, event_context) VALUES ('bad', 'test', '[1, 2]')")
    until(lambda: letters(world) == 1)
    code, done = asked(world, "retry", "--all")
    assert code == 1
    assert next(iter(done["refused"].values())).startswith("ClickHouse: ")
    world.clickhouse.command("SYSTEM START MERGES event_log")
    world.clickhouse.command("ALTER TABLE event_log MODIFY COLUMN event_context String", settings={"mutations_sync": 1})
    assert asked(world, "retry", "--all")[0] == 0
    assert world.clickhouse.rows("SELECT event_type, event_context FROM event_log") == [("bad", "[1, 2]")]
    world.assert_once_each()


@pytest.mark.parametrize("point", [pytest.param("letters.inserted", marks=pytest.mark.thorough), "letters.removed"])
def test_a_worker_that_dies_amid_a_retry_neither_loses_nor_repeats_the_row(
    world: World, tmp_path: Path, point: str
) -> None:
    points = tmp_path / "points"
    points.mkdir()
    world.pipeline.start("worker", "reader", OUTHAUL_FAILPOINTS=str(points))
    insert_at(world, "infinity", "-infinity")
    until(lambda: letters(world) == 2)
    mend(world, "-infinity", "2026-01-01 00:00:00+00")
    mend(world, "infinity", "2026-01-02 00:00:00+00")
    (points / point).write_text("kill")
    asked(world, "retry", "--all", "--wait", "5")
    assert (points / f"{point}.fired").exists()
    assert world.stored() == 2
    asked(world, "retry", "--all", "--wait", "10")
    until(lambda: letters(world) == 0, what="the letters are gone")
    world.assert_once_each()
    world.insert(3)
    world.assert_once_each()


def test_a_row_that_a_crash_left_in_both_tables_is_finished_by_the_next_retry(world: World) -> None:
    positions = set_aside(world, {}, {}, {"event_date_time": "infinity"})
    found = dead_letters.find(world.clickhouse, world.outbox, positions)
    assert list(_insert_all(world.clickhouse, world.outbox, found, ())) == [positions[2]]
    assert (world.stored(), letters(world)) == (2, 3)
    # By then its token may be forgotten, and its value mended to another month: the position keeps it out.
    mend(world, "2026-01-01 00", "2026-05-01 00")
    world.clickhouse.command("ALTER TABLE event_log MODIFY SETTING non_replicated_deduplication_window = 0")
    words = retry(world.clickhouse, world.outbox, order(world, positions))
    assert [word.outcome for word in words] == [LetterOutcome.RETRIED, LetterOutcome.RETRIED, LetterOutcome.REFUSED]
    assert (world.stored(), letters(world)) == (2, 1)


@pytest.mark.thorough
def test_retries_at_the_same_moment_store_each_row_once(world: World) -> None:
    positions = set_aside(world, *({} for _ in range(12)))
    errors: list[Exception] = []
    gate = threading.Barrier(4)

    def run(some: list[Position]) -> None:
        clickhouse = ClickHouse(world.env["OUTHAUL_CLICKHOUSE_URL"], timeout_s=30)
        gate.wait()
        try:
            retry(clickhouse, world.outbox, order(world, some))
        except (TransientError, FatalError) as error:
            errors.append(error)
        clickhouse.close()

    threads = [threading.Thread(target=run, args=(positions[n:] + positions[:n],)) for n in (0, 0, 3, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert (world.stored(), letters(world)) == (12, 0)
    assert world.ch("SELECT uniqExact(cdc_ordinal) FROM event_log") == 12


def test_a_retry_passes_the_fence_of_the_newest_reader_and_raises_no_fence(world: World) -> None:
    positions = set_aside(world, {}, {})
    raise_epoch(world.clickhouse, world.stream, History("7", 1), Lsn(0), 1, "me")
    assert retry(world.clickhouse, world.outbox, order(world, positions[:1]))[0].outcome is LetterOutcome.RETRIED
    raise_epoch(world.clickhouse, world.stream, History("7", 1), Lsn(0), 2, "another")
    assert retry(world.clickhouse, world.outbox, order(world, positions[1:]))[0].outcome is LetterOutcome.RETRIED
    assert world.ch("SELECT count() FROM event_log_epochs") == 2


def test_a_token_without_its_row_holds_a_letter_up_until_the_next_epoch(world: World) -> None:
    """ClickHouse was killed between the two, or the row was deleted: the letter stays, and the report says why."""
    [position] = set_aside(world, {})
    raise_epoch(world.clickhouse, world.stream, History("7", 1), Lsn(0), 1, "me")
    world.clickhouse.command("CREATE TABLE kept ENGINE = Memory AS SELECT * FROM event_log_dead_letters")
    assert retry(world.clickhouse, world.outbox, order(world, [position]))[0].outcome is LetterOutcome.RETRIED
    world.clickhouse.command("SYSTEM START MERGES event_log")
    world.clickhouse.command("ALTER TABLE event_log DELETE WHERE 1 SETTINGS mutations_sync = 2")
    world.clickhouse.command("INSERT INTO event_log_dead_letters SELECT * FROM kept")
    for _ in range(2):
        [report] = retry(world.clickhouse, world.outbox, order(world, [position]))
        assert (report.outcome, "new epoch has new tokens" in report.why) == (LetterOutcome.FAILED, True)
        assert (world.stored(), letters(world)) == (0, 1)
    raise_epoch(world.clickhouse, world.stream, History("7", 1), Lsn(0), 2, "another")
    assert retry(world.clickhouse, world.outbox, order(world, [position]))[0].outcome is LetterOutcome.RETRIED
    assert (world.stored(), letters(world)) == (1, 0)


def test_a_row_that_another_retry_is_storing_is_waited_for(world: World) -> None:
    """Both have one token, so ClickHouse drops the second insert while the row of the first is not there yet."""
    [position] = set_aside(world, {})
    raise_epoch(world.clickhouse, world.stream, History("7", 1), Lsn(0), 1, "me")
    reports: list[LetterOutcome] = []
    gate = threading.Barrier(6)

    def run() -> None:
        with ClickHouse(world.env["OUTHAUL_CLICKHOUSE_URL"], timeout_s=30) as clickhouse:
            gate.wait()
            reports.extend(one.outcome for one in retry(clickhouse, world.outbox, order(world, [position])))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert LetterOutcome.RETRIED in reports
    # A retry that begins when the letter is gone does not know it.
    assert set(reports) <= {LetterOutcome.RETRIED, LetterOutcome.UNKNOWN}
    assert (world.stored(), letters(world)) == (1, 0)


def test_a_view_that_refuses_the_row_of_a_letter_costs_that_view_alone(world: World) -> None:
    world.clickhouse.command(
        "CREATE TABLE amounts (n UInt64) ENGINE = MergeTree ORDER BY n "
        "SETTINGS non_replicated_deduplication_window = 10000"
    )
    world.clickhouse.command(
        "CREATE MATERIALIZED VIEW amounts_view TO amounts AS SELECT toUInt64(environment) AS n FROM event_log"
    )
    [position] = set_aside(world, {})
    raise_epoch(world.clickhouse, world.stream, History("7", 1), Lsn(0), 1, "me")
    assert retry(world.clickhouse, world.outbox, order(world, [position]))[0].outcome is LetterOutcome.RETRIED
    assert (world.stored(), letters(world)) == (1, 0)
    assert world.ch("SELECT count() FROM amounts") == 0
    assert world.ch("SELECT count() FROM event_log_view_gaps") == 1


def test_a_retry_goes_on_under_a_reader_that_takes_over_in_the_middle(world: World) -> None:
    [position] = set_aside(world, {})
    raise_epoch(world.clickhouse, world.stream, History("7", 1), Lsn(0), 1, "old")
    raise_epoch(world.clickhouse, world.stream, History("7", 1), Lsn(0), 2, "new")
    [letter] = dead_letters.find(world.clickhouse, world.outbox, [position])
    row = restore(letter, _types(world.clickhouse, world.outbox), ())
    old = Epoch(1, "old", History("7", 1))
    newest = _insert(world.clickhouse, world.outbox, letter, row, old)
    assert newest is not None
    assert newest.owner == "new"
    assert world.stored() == 1


@pytest.mark.parametrize("lane", ["", "/copy", "/stream_1of2"])
def test_a_letter_leaves_only_when_inserts_that_may_not_have_seen_its_row_have_ended(world: World, lane: str) -> None:
    positions = set_aside(world, {})
    mark = f"outhaul:{world.settings.source}{lane}"
    slow = ClickHouse(world.env["OUTHAUL_CLICKHOUSE_URL"], timeout_s=30)
    statement = "INSERT INTO FUNCTION null('x UInt8') SELECT sleepEachRow(0.5) FROM numbers(4)"
    thread = threading.Thread(
        target=slow.command, args=(statement,), kwargs={"settings": {"log_comment": mark, "max_block_size": 1}}
    )
    thread.start()
    count = f"SELECT count() FROM system.processes WHERE Settings['log_comment'] = '{mark}' AND query LIKE '%sleep%'"
    until(lambda: world.ch(count), what="the older insert runs")
    retrying = threading.Thread(target=retry, args=(world.clickhouse, world.outbox, order(world, positions)))
    retrying.start()
    looking = ClickHouse(world.env["OUTHAUL_CLICKHOUSE_URL"], timeout_s=30)

    def seen() -> tuple[int, int, int]:
        query = f"SELECT ({count}), (SELECT count() FROM event_log), (SELECT count() FROM event_log_dead_letters)"
        running, stored, left = looking.rows(query)[0]
        return int(running), int(stored), int(left)

    looks = [seen()]
    while looks[-1][0]:
        looks.append(seen())
    assert (1, 1, 1) in looks, "the row is stored while the older insert runs"
    assert not [look for look in looks if look[0] and not look[2]], "the letter left before the older insert had ended"
    for one in (thread, retrying):
        one.join()
    assert (world.stored(), letters(world)) == (1, 0)
    for client in (slow, looking):
        client.close()


def test_a_retry_waits_no_longer_than_an_insert_may_take(world: World) -> None:
    set_aside(world, {})
    slow = ClickHouse(world.env["OUTHAUL_CLICKHOUSE_URL"], timeout_s=30)
    mark = f"outhaul:{world.settings.source}"
    statement = "INSERT INTO FUNCTION null('x UInt8') SELECT sleepEachRow(0.5) FROM numbers(4)"
    thread = threading.Thread(
        target=slow.command, args=(statement,), kwargs={"settings": {"log_comment": mark, "max_block_size": 1}}
    )
    thread.start()
    until(lambda: world.ch(f"SELECT count() FROM system.processes WHERE Settings['log_comment'] = '{mark}'"))
    hasty = world.settings.model_copy(update={"insert_timeout_s": -9.9})
    with pytest.raises(TransientError, match="still running"):
        wait_for_older_inserts(world.clickhouse, hasty, None, lambda _: None)
    thread.join()
    slow.close()


@pytest.mark.thorough
def test_a_discarded_letter_leaves_a_trace_and_is_never_streamed_or_tried_again(running: World) -> None:
    insert_at(running, "infinity", "-infinity", "2026-01-01Z")
    until(lambda: letters(running) == 2 and running.stored() == 1)
    _, before = asked(running, "list")
    gone, kept = (one["position"] for one in before["newest"])
    code, out, err = outhaul(running, "dlq", "discard", gone)
    assert (code, out) == (Exit.USAGE, "")
    assert '"-infinity"' in err
    assert "--yes" in err
    assert asked(running, "list") == (0, before)

    code, done = asked(running, "discard", gone, "--yes")
    assert (code, done) == (0, {"discarded": [gone], "unknown": []})
    _, after = asked(running, "list")
    assert [one["position"] for one in after["newest"]] == [kept]
    _, found = asked(running, "list", "--discarded")
    assert (found["total"], found["discarded"]) == (2, 1)
    kept_values = {"id": "2", "event_date_time": "-infinity"}
    assert next(one["row"] for one in found["newest"] if one["position"] == gone) == kept_values
    assert asked(running, "retry", gone)[1]["discarded"] == [gone]
    assert asked(running, "discard", gone, "--yes") == (1, {"discarded": [], "unknown": [gone]})

    running.pipeline.kill("reader")
    running.pipeline.start("reader")
    running.insert(3)
    running.assert_once_each(dead=2)
    assert letters(running) == 2


def test_an_exported_letter_has_all_that_the_letter_had(world: World, tmp_path: Path) -> None:
    odd = {"event_context": json.dumps({"t": 'tab\t"quote" \\ ü 🚀'}), "note": None, "bytes": "\udcff\udc80"}
    positions = set_aside(world, odd, {"event_date_time": "infinity"})
    rows = [
        json.loads(row)
        for (row,) in world.clickhouse.rows("SELECT row FROM event_log_dead_letters ORDER BY cdc_ordinal")
    ]
    file = tmp_path / "letters.jsonl"
    assert outhaul(world, "dlq", "export", str(file))[0] == 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [one["row"] for one in lines] == rows
    assert rows[0]["bytes"] == odd["bytes"]
    assert [one["position"] for one in lines] == [str(position) for position in positions]
    assert outhaul(world, "dlq", "export")[1] == file.read_text()
    text = file.read_text()
    assert outhaul(world, "dlq", "export", str(file))[0] == Exit.USAGE
    assert file.read_text() == text
    assert outhaul(world, "dlq", "export", "--until", "1h")[1] == ""
    assert len(outhaul(world, "dlq", "export", "--since", "1h")[1].splitlines()) == 2


def test_thousands_of_letters_are_exported_once_each(world: World) -> None:
    world.clickhouse.command(
        "INSERT INTO event_log_dead_letters (row, reason, cdc_source, cdc_lsn, cdc_ordinal, cdc_committed_at) SELECT "
        f"concat('{{\"id\": \"', toString(number), '\"}}'), 'r', '{world.settings.source}', number % 7, number, now() "
        "FROM numbers(1234)"
    )
    ids = [int(json.loads(line)["row"]["id"]) for line in outhaul(world, "dlq", "export")[1].splitlines()]
    assert sorted(ids) == list(range(1234))


def test_a_retry_that_no_worker_takes_says_so_and_is_done_by_the_next_worker(world: World) -> None:
    [position] = set_aside(world, {})
    code, done = asked(world, "retry", "--all", "--wait", "1")
    assert (code, done["unanswered"]) == (1, [str(position)])
    assert (world.stored(), letters(world)) == (0, 1)
    world.pipeline.start("worker")
    until(lambda: (world.stored(), letters(world)) == (1, 0), what="the worker does it")


@pytest.mark.parametrize("chosen", [[], ["--all", "--reason", "x"], ["0/1#0", "--all"], ["nonsense"]])
@pytest.mark.parametrize("command", ["retry", "discard"])
def test_letters_are_chosen_in_exactly_one_way(world: World, command: str, chosen: list[str]) -> None:
    code, out, err = outhaul(world, "dlq", command, *chosen)
    assert (code, out, err.count("\n")) == (Exit.USAGE, "", 1)


@pytest.mark.thorough
def test_a_dead_server_or_a_missing_table_is_one_line_and_changes_nothing(world: World) -> None:
    set_aside(world, {})
    everything = [["list"], ["show", "0/2BC#0"], ["retry", "--all"], ["discard", "--all", "--yes"], ["export"]]
    redis, postgres = {"OUTHAUL_REDIS_URL": "redis://127.0.0.1:1/0"}, "postgresql://127.0.0.1:1/x"
    url = world.env["OUTHAUL_CLICKHOUSE_URL"]
    wrong = url.split("://")[0] + "://nobody:wrong@" + url.rsplit("@", 1)[-1].split("://")[-1]
    cases: list[tuple[list[str], dict[str, str], Exit]] = [
        *(
            (command, {"OUTHAUL_CLICKHOUSE_URL": "http://127.0.0.1:1/x"}, Exit.CLICKHOUSE_UNREACHABLE)
            for command in everything
        ),
        *((command, {"OUTHAUL_CLICKHOUSE_TABLE": "nothing"}, Exit.CLICKHOUSE_TABLE) for command in everything),
        (["list"], {"OUTHAUL_CLICKHOUSE_URL": wrong}, Exit.CLICKHOUSE_LOGIN),
        (["retry", "--all"], redis, Exit.REDIS_UNREACHABLE),
        (["retry", "--all"], {"OUTHAUL_POSTGRES_DSN": postgres}, Exit.POSTGRES_UNREACHABLE),
        (["retry", "--all"], {"OUTHAUL_TABLE": "public.nothing"}, Exit.TABLE_MISSING),
    ]
    for command, env, exit_code in cases:
        code, out, err = outhaul(world, "dlq", *command, **env)
        assert (code, out, err.count("\n")) == (exit_code, "", 1), (command, env, err)
    assert (world.stored(), letters(world)) == (0, 1)
    assert world.payloads.length(world.settings.queue_key) == 0
    world.clickhouse.command("ALTER TABLE event_log_dead_letters DROP COLUMN discarded_at")
    code, _, err = outhaul(world, "dlq", "list")
    assert code == Exit.CLICKHOUSE_TABLE
    assert "outhaul setup" in err


def test_help_fits_a_screen_and_shows_an_example(world: World) -> None:
    for command in ("list", "show", "retry", "discard", "export"):
        code, out, _ = outhaul(world, "dlq", command, "--help", COLUMNS="100")
        assert code == 0
        assert "Example: outhaul dlq" in out
        assert len(out.splitlines()) <= 30
