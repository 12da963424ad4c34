"""The published state of a reader: a new phase is published at once, all else once a second."""

from __future__ import annotations

import threading

from outhaul.cdc_reader.session.reader_state import ReaderState, Snapshot


def test_a_line_is_due_when_the_phase_changes_and_when_it_is_old() -> None:
    snapshot = Snapshot()
    assert snapshot.is_due("recovering", 0.0)
    snapshot.update(ReaderState(7, "here", "recovering"), 0.0)
    assert not snapshot.is_due("recovering", 0.1)
    assert snapshot.is_due("streaming", 0.1)
    assert snapshot.is_due("recovering", 0.6)


def test_a_new_phase_ends_the_wait_of_the_thread_that_publishes_it() -> None:
    snapshot = Snapshot()
    snapshot.update(ReaderState(7, "here", "recovering"), 0.0)
    snapshot.wait(0.0)
    snapshot.update(ReaderState(7, "here", "recovering"), 0.6)
    publishing = threading.Thread(target=snapshot.wait, args=(60.0,), daemon=True)
    publishing.start()
    publishing.join(0.1)
    assert publishing.is_alive(), "the same phase waits for its second"
    snapshot.update(ReaderState(7, "here", "streaming"), 0.7)
    publishing.join(30.0)
    assert not publishing.is_alive()
