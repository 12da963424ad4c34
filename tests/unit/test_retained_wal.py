"""What a slot keeps: how fast it grows, when that is trouble, and which words say so."""

from dataclasses import replace

import pytest

from outhaul.cdc_reader.slots.retained_wal import Slot, compare, judge, watch

MB = 1_000_000
QUIET = Slot(
    active=True, active_pid=7, plugin="pgoutput", database="app", confirmed_lsn="0/9", wal_status="reserved",
    safe_wal_size=None, retained_bytes=10 * MB, behind_bytes=1 * MB, max_slot_wal_keep_size=None,
    invalidation_reason=None, inactive_since=None, looked_at=100.0,
)  # fmt: skip
LIMITED = replace(QUIET, safe_wal_size=900 * MB, max_slot_wal_keep_size=1000 * MB)


def later(slot: Slot, seconds: float, kept: int, behind: int) -> Slot:
    """Return the slot some seconds later, with more bytes."""
    return replace(
        slot,
        looked_at=slot.looked_at + seconds,
        retained_bytes=(slot.retained_bytes or 0) + kept,
        behind_bytes=(slot.behind_bytes or 0) + behind,
        safe_wal_size=None if slot.safe_wal_size is None else slot.safe_wal_size - kept,
    )


def test_a_slot_that_keeps_little_is_fine_with_and_without_a_limit() -> None:
    assert judge(QUIET, "s") == judge(LIMITED, "s") == []


def test_growth_is_bytes_a_second_and_trouble_is_when_the_limit_is_reached() -> None:
    found = compare(LIMITED, later(LIMITED, 2, 100 * MB, 100 * MB))
    assert (found.growth_bytes_s, found.time_to_trouble_s) == (50 * MB, 16)
    assert found.retained_bytes == 110 * MB


def test_what_is_kept_only_until_the_server_looks_again_is_no_growth() -> None:
    found = compare(LIMITED, later(LIMITED, 1, 50 * MB, 0))
    assert (found.growth_bytes_s, found.time_to_trouble_s) == (0, None)
    assert judge(found, "s") == []


def test_a_slot_that_shrinks_is_not_in_trouble() -> None:
    found = compare(LIMITED, later(LIMITED, 1, -5 * MB, 1 * MB))
    assert (found.growth_bytes_s, found.time_to_trouble_s) == (-5 * MB, None)


def test_without_a_limit_there_is_growth_and_no_time() -> None:
    found = compare(QUIET, later(QUIET, 1, MB, MB))
    assert (found.growth_bytes_s, found.time_to_trouble_s) == (MB, None)


def test_two_samples_of_one_moment_or_of_a_lost_slot_give_no_rate() -> None:
    assert compare(LIMITED, LIMITED) == LIMITED
    lost = replace(LIMITED, wal_status="lost", retained_bytes=None, safe_wal_size=None, looked_at=101.0)
    assert compare(LIMITED, lost) == lost


def test_a_limit_that_is_reached_already_leaves_no_time() -> None:
    beyond = replace(LIMITED, safe_wal_size=MB)
    assert compare(beyond, later(beyond, 1, 5 * MB, 5 * MB)).time_to_trouble_s == 0


@pytest.mark.parametrize("status", ["extended", "unreserved", "lost"])
def test_every_wal_status_but_reserved_is_named(status: str) -> None:
    assert [f"wal_status {status}" in line for line in judge(replace(QUIET, wal_status=status), "s")] == [True]


def test_the_reason_of_an_invalidation_is_named() -> None:
    lost = replace(QUIET, wal_status="lost", invalidation_reason="wal_removed")
    assert "wal_removed" in judge(lost, "s")[0]
    assert "idle_timeout" in judge(replace(QUIET, invalidation_reason="idle_timeout"), "s")[0]


@pytest.mark.parametrize(("safe", "warns"), [(200 * MB, False), (199 * MB, True), (-5 * MB, True)])
def test_less_than_a_fifth_of_the_limit_is_little(safe: int, warns: bool) -> None:
    assert bool(judge(replace(LIMITED, safe_wal_size=safe), "s")) == warns


@pytest.mark.parametrize(("kept", "warns"), [(10 << 30, False), ((10 << 30) + 1, True)])
def test_much_without_a_limit_is_named(kept: int, warns: bool) -> None:
    assert [("no limit" in line) for line in judge(replace(QUIET, retained_bytes=kept), "s")] == [True] * warns


@pytest.mark.parametrize(("left_s", "warns"), [(3600.0, False), (3599.0, True)])
def test_trouble_within_an_hour_is_named_with_its_time(left_s: float, warns: bool) -> None:
    found = judge(replace(LIMITED, growth_bytes_s=float(MB), time_to_trouble_s=left_s), "s")
    assert [("invalidates it in 59 min" in line) for line in found] == [True] * warns


def test_trouble_in_a_short_look_is_looked_at_for_longer() -> None:
    waits: list[float] = []
    # One batch on its way: everything grows in the first second, and is confirmed in the next.
    looks = iter([later(LIMITED, 1, 5 * MB, 5 * MB), later(LIMITED, 5, 6 * MB, 0)])
    found = watch(LIMITED, lambda: next(looks), waits.append)
    assert (len(waits), found.time_to_trouble_s, found.looked_at) == (2, None, 105)


def test_a_quiet_slot_is_looked_at_for_a_second() -> None:
    waits: list[float] = []
    watch(LIMITED, lambda: later(LIMITED, 1, 0, 0), waits.append)
    assert waits == [1.0]


def test_a_slot_that_is_dropped_meanwhile_is_reported_as_it_was() -> None:
    assert watch(LIMITED, lambda: None, lambda _: None) == LIMITED


def test_a_standby_that_does_not_follow_is_named_and_one_that_lags_is_not() -> None:
    lags = replace(QUIET, replay_behind_bytes=5 * MB, is_following=True)
    assert judge(lags, "s") == judge(replace(lags, replay_behind_bytes=0, is_following=False), "s") == []
    (said,) = judge(replace(lags, is_following=False), "s")
    assert "5.0 MB behind the primary and does not replay" in said


@pytest.mark.parametrize(
    ("reason", "cure"),
    [
        ("rows_removed", "hot_standby_feedback = on"),
        ("conflict", "hot_standby_feedback = on"),
        ("wal_level_insufficient", "wal_level"),
    ],
)
def test_what_a_standby_lost_its_slot_by_is_named_with_its_cure(reason: str, cure: str) -> None:
    (said,) = judge(replace(QUIET, wal_status="lost", invalidation_reason=reason), "s")
    assert cure in said
