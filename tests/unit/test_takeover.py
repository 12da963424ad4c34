"""When a standby takes the holder of the slot for silent; it looks once a second."""

from __future__ import annotations

from dataclasses import replace

import pytest

from outhaul.cdc_reader.session.takeover import Holder, Watch

HOLDER = Holder(pid=7, began="10:00", shows_replies=True, replied="10:01", is_outhaul=True, waits=True)
HIDDEN = replace(HOLDER, shows_replies=False, replied=None)


def silent_after(watch: Watch, holder: Holder, *, is_published: bool = True, begun_at: int = 0) -> int | None:
    """Look once a second for a minute at a holder who does not change."""
    looks = range(begun_at, begun_at + 60)
    return next((now for now in looks if watch.observe(holder, is_published=is_published, now=now) is not None), None)


@pytest.mark.parametrize(
    ("holder", "is_published", "seconds"),
    [
        (HOLDER, True, 5),
        (HOLDER, False, 5),
        (replace(HOLDER, replied=None), True, 15),
        (HIDDEN, False, 7),
        (HIDDEN, True, None),
        (replace(HOLDER, is_outhaul=False), True, None),
        (replace(HIDDEN, is_outhaul=False), False, None),
        (replace(HOLDER, waits=False), True, None),
        (replace(HIDDEN, waits=False), False, None),
    ],
)
def test_a_holder_is_silent_after(holder: Holder, is_published: bool, seconds: int | None) -> None:
    assert silent_after(Watch(1.0), holder, is_published=is_published) == seconds


def test_a_reader_that_answers_is_never_silent() -> None:
    watch = Watch(1.0)
    answers = (replace(HOLDER, replied=str(now // 4)) for now in range(100))
    assert not any(watch.observe(holder, is_published=False, now=now) for now, holder in enumerate(answers))


def test_a_walsender_that_works_takes_no_answer_and_gets_a_second_look_when_it_waits() -> None:
    """It reads what came meanwhile as soon as it waits."""
    watch = Watch(1.0)
    assert silent_after(watch, replace(HOLDER, waits=False)) is None
    assert watch.observe(HOLDER, is_published=True, now=60) is None
    assert watch.observe(replace(HOLDER, replied="10:02"), is_published=True, now=61) is None
    assert silent_after(watch, replace(HOLDER, replied="10:02"), begun_at=62) == 66


def test_a_new_session_starts_at_zero_also_under_a_number_that_was_used_before() -> None:
    watch = Watch(1.0)
    assert silent_after(watch, HOLDER) == 5
    assert silent_after(watch, replace(HOLDER, began="10:05"), begun_at=6) == 11
    assert silent_after(watch, replace(HOLDER, pid=8), begun_at=12) == 17


def test_readers_that_answer_seldom_are_waited_for_longer() -> None:
    assert silent_after(Watch(3.0), HOLDER) == 15


def test_a_reader_whose_state_is_in_redis_again_is_not_silent() -> None:
    watch = Watch(1.0)
    assert watch.observe(HIDDEN, is_published=False, now=0) is None
    assert watch.observe(HIDDEN, is_published=True, now=6) is None
    assert silent_after(watch, HIDDEN, is_published=False, begun_at=7) == 14
