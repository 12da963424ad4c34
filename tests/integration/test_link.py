"""How the reader reads: never more than asked for, in bounded memory, and many bytes at a wake-up."""

from __future__ import annotations

import os
import select
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from outhaul.cdc_reader.capture.frame import Run, server_status
from outhaul.cdc_reader.postgres.slot import Link, open_link
from outhaul.sink.position import Lsn
from tests.conftest import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.postgres_oracle import Oracle

EVERYTHING = 1 << 30
CROWD_BYTES = 64 << 10


@pytest.fixture
def link(oracle: Oracle) -> Iterator[Link]:
    oracle.run("CREATE TABLE note (id bigserial PRIMARY KEY, body text)")
    oracle.publish("note")
    with closing(open_link(oracle.dsn, oracle.name, oracle.name)) as made:
        yield made
    free = "SELECT count(*) = 1 FROM pg_replication_slots WHERE slot_name = %s AND NOT active"
    until(lambda: oracle.conn.execute(free, [oracle.name]).fetchone() == (True,), what="the slot is free")


def readable(link: Link, within_s: float) -> bool:
    poll = select.poll()
    poll.register(link.fileno(), select.POLLIN)
    return bool(poll.poll(within_s * 1000))


def read(link: Link, max_bytes: int = EVERYTHING, max_frames: int = EVERYTHING) -> Run:
    run = Run()
    link.read(run.data, run.lengths, max_bytes, max_frames)
    return run


def runs(link: Link, end: Lsn, *, max_bytes: int = EVERYTHING, max_frames: int = EVERYTHING) -> Iterator[Run]:
    """Read until the server has sent everything up to `end`."""
    deadline = time.monotonic() + 30
    reached = Lsn(0)
    while reached < end or link.more:
        assert time.monotonic() < deadline
        if not link.more:
            readable(link, 0.2)
        run = read(link, max_bytes, max_frames)
        if run.lengths:
            reached = max(reached, server_status(run).wal_end)
            yield run


def end_of(oracle: Oracle) -> Lsn:
    row = oracle.conn.execute("SELECT pg_current_wal_lsn()::text").fetchone()
    assert row is not None
    return Lsn.parse(row[0])


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_read_stops_at_its_bounds_and_leaves_nothing_out(oracle: Oracle, link: Link) -> None:
    oracle.run("INSERT INTO note (body) SELECT repeat('x', 100) FROM generate_series(1, 3000)")
    end = end_of(oracle)
    link.start(binary=True)
    few = list(runs(link, end, max_frames=7))
    assert max(len(run.lengths) for run in few) == 7
    assert all(sum(run.lengths) == len(run.data) for run in few)
    frames = b"".join(run.data for run in few)
    assert frames.count(b"x" * 100) == 3000
    assert sum(len(run.lengths) for run in few) >= 3003


def test_a_read_stops_once_it_has_bytes_enough(oracle: Oracle, link: Link) -> None:
    oracle.run("INSERT INTO note (body) SELECT repeat('x', 100) FROM generate_series(1, 3000)")
    end = end_of(oracle)
    link.start(binary=True)
    assert max(len(run.data) for run in runs(link, end, max_bytes=1000)) < 1000 + 200


def test_what_is_not_asked_for_waits_in_the_kernel_and_not_in_memory(oracle: Oracle, link: Link) -> None:
    """A client that reads a frame at a time must not gather the stream in libpq's buffer, which never shrinks."""
    oracle.run("INSERT INTO note (body) SELECT repeat('x', 1000) FROM generate_series(1, 60000)")
    link.start(binary=True)
    assert readable(link, 10)
    before = resident_bytes()
    for _ in range(500):
        readable(link, 0.01)
        read(link, max_frames=1)
    assert resident_bytes() - before < 8 << 20


def test_a_patient_link_counts_as_readable_from_many_bytes_on_and_is_read_whenever_asked(
    oracle: Oracle, link: Link
) -> None:
    link.start(binary=True)
    while readable(link, 0.5):
        read(link)
    link.window.wake_at(CROWD_BYTES)
    oracle.run("INSERT INTO note (body) VALUES ('alone')")
    assert not readable(link, 1.0)
    assert b"alone" in read(link).data
    oracle.run(f"INSERT INTO note (body) VALUES (repeat('x', {2 * CROWD_BYTES}))")
    assert readable(link, 10)
    link.window.wake_at(1)
    while readable(link, 0.5):
        read(link)
    oracle.run("INSERT INTO note (body) VALUES ('alone')")
    assert readable(link, 10)


def test_a_read_takes_many_frames_where_many_are_there(oracle: Oracle, link: Link) -> None:
    """libpq as it starts takes 16 KiB at a time, about sixty of these; its buffer has to be grown beforehand."""
    oracle.run("INSERT INTO note (body) SELECT repeat('x', 100) FROM generate_series(1, 20000)")
    end = end_of(oracle)
    link.start(binary=True)
    link.window.wake_at(CROWD_BYTES)
    assert readable(link, 10)
    time.sleep(0.5)
    assert len(next(runs(link, end)).lengths) > 500
