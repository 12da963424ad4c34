"""A worker counts as deaf when messages wait and it does nothing, for long enough and without a break."""

import tempfile

import pytest

from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.process.watchdog import DeafCheck
from outhaul.sink.process.worker_pages import WorkerPages
from outhaul.sink.redis.payloads import DEAF_S
from outhaul.sink.settings import load


def test_messages_that_wait_while_nothing_begins_mean_deaf_after_a_while() -> None:
    deaf_check = DeafCheck()
    assert not deaf_check.is_deaf(queued=3, has_pulse=False, now=100.0)
    assert not deaf_check.is_deaf(queued=3, has_pulse=False, now=100.0 + DEAF_S - 0.1)
    assert deaf_check.is_deaf(queued=3, has_pulse=False, now=100.0 + DEAF_S)


def test_an_empty_queue_or_a_running_task_starts_the_wait_again() -> None:
    for queued, has_pulse in ((0, False), (3, True)):
        deaf_check = DeafCheck()
        assert not deaf_check.is_deaf(queued=3, has_pulse=False, now=0.0)
        assert not deaf_check.is_deaf(queued=queued, has_pulse=has_pulse, now=DEAF_S - 1)
        assert not deaf_check.is_deaf(queued=3, has_pulse=False, now=DEAF_S)
        assert deaf_check.is_deaf(queued=3, has_pulse=False, now=2 * DEAF_S)


def test_metrics_without_a_directory_for_temporary_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(FatalError, match="Let TMPDIR name a directory that is writable") as refused:
        WorkerPages(load(metrics_port=9461))
    assert refused.value.exit_code is Exit.SETTINGS
