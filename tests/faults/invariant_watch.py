"""Writers that note what they committed, and a sampler that holds the slot against what is stored, all the time.

The sampler reads the slot first and ClickHouse afterwards: what is stored only grows, so a row that is missing then was
missing when the slot passed it.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.rig import Rig

_ENOUGH = 3
_EVERY_S = 0.05
_ANSWER_S = 60.0
_SIZES = (1, 3, 20, 120)

_ROWS = (
    "INSERT INTO outbox (id, event_type, environment, event_context, event_date_time) "
    "SELECT id, %(kind)s, 'test', jsonb_build_object('n', id), "
    "now() - make_interval(months => (id %% %(months)s)::int) "
    "FROM unnest(%(ids)s::bigint[]) AS id"
)


@dataclass
class Journal:
    """What was committed: ids, and a WAL position at or behind the end of their commit."""

    commits: list[tuple[list[int], int]] = field(default_factory=list)

    def write(
        self, conn: psycopg.Connection[Any], count: int, *, kind: str, months: int = 1, copy: bool = False
    ) -> None:
        """Commit one transaction of `count` events."""
        ids = self.begin(conn, count, kind=kind, months=months, copy=copy)
        conn.commit()
        self.committed(conn, ids)

    def begin(self, conn: psycopg.Connection[Any], count: int, *, kind: str, months: int, copy: bool) -> list[int]:
        """Insert, and leave the transaction open."""
        numbers = conn.execute("SELECT nextval('outbox_id_seq') FROM generate_series(1, %s)", [count]).fetchall()
        ids = [int(number) for (number,) in numbers]
        if copy:
            with conn.cursor().copy("COPY outbox (id, event_type, environment, event_context) FROM STDIN") as rows:
                for number in ids:
                    rows.write_row((number, kind, "test", "{}"))
        else:
            conn.execute(_ROWS, {"kind": kind, "ids": ids, "months": months})
        return ids

    def committed(self, conn: psycopg.Connection[Any], ids: list[int]) -> None:
        """Note a commit, of which `conn` has just heard."""
        row = conn.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()
        conn.rollback()
        assert row is not None
        self.commits.append((ids, int(row[0])))


class Watch:
    """Writes and samples until it is over."""

    def __init__(self, rig: Rig) -> None:
        """Start nothing yet."""
        self._rig = rig
        self._journal = rig.journal
        self._checked = len(rig.journal.commits)
        self._quiet = threading.Event()
        self._over = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._clickhouse = ClickHouse(rig.world.env["OUTHAUL_CLICKHOUSE_URL"], timeout_s=10)
        self._passed: dict[int, int] = {}
        self.samples = 0
        self.violations: list[str] = []
        self.errors: list[BaseException] = []

    @contextlib.contextmanager
    def running(self, *, writers: int) -> Iterator[Watch]:
        """Write during the block; `finish` ends the sampling."""
        self._start("sample", self._sample)
        for number in range(writers):
            self._start(f"write-{number}", lambda number=number: self._write(number))
        try:
            yield self
        finally:
            self._quiet.set()
            for name, thread in self._threads.items():
                if name != "sample":
                    thread.join()

    def stop(self) -> None:
        """End the sampling."""
        self._over.set()
        self._threads["sample"].join()

    def finish(self) -> None:
        """End the sampling and say what it has seen; it may have waited for what was taken away until now."""
        deadline = time.monotonic() + _ANSWER_S
        while self.samples < _ENOUGH and not self.errors and time.monotonic() < deadline:
            time.sleep(_EVERY_S)
        self.stop()
        for lsn, count in self._passed.items():
            now = self._ask(f"SELECT count() FROM event_log WHERE cdc_lsn < {lsn}")[0][0]
            if now != count:
                self.violations.append(f"the slot was at {lsn:X} when {now - count} rows before it were not stored")
        self._clickhouse.close()
        if self.errors:
            raise self.errors[0]
        assert not self.violations, self.violations[:5]
        assert self.samples >= _ENOUGH, "the slot was hardly looked at"

    def _start(self, name: str, run: Any) -> None:
        def guarded() -> None:
            try:
                run()
            except BaseException as error:  # noqa: BLE001 - told by `finish`
                self.errors.append(error)

        self._threads[name] = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads[name].start()

    def _write(self, number: int) -> None:
        turns = itertools.count(number)
        while not self._quiet.is_set():
            try:
                with psycopg.connect(self._rig.world.dsn) as conn:
                    while not self._quiet.is_set():
                        self._turn(conn, next(turns))
                        self._quiet.wait(0.05)
            except psycopg.OperationalError:
                # Postgres was taken away; whether the last commit was made, the table itself tells at the end.
                self._quiet.wait(0.1)

    def _turn(self, conn: psycopg.Connection[Any], turn: int) -> None:
        match turn % 10:
            case 7:
                self._journal.begin(conn, 5, kind="never", months=1, copy=False)
                conn.rollback()
            case 8:
                conn.execute("INSERT INTO elsewhere SELECT 'x' FROM generate_series(1, 3)")
                conn.commit()
            case 9:
                conn.execute("SELECT pg_current_xact_id()")
                conn.commit()
            case 6:
                ids = self._journal.begin(conn, 2, kind="kept", months=1, copy=False)
                conn.execute("SAVEPOINT s")
                self._journal.begin(conn, 2, kind="never", months=1, copy=False)
                conn.execute("ROLLBACK TO SAVEPOINT s")
                ids += self._journal.begin(conn, 2, kind="kept", months=1, copy=False)
                conn.commit()
                self._journal.committed(conn, ids)
            case kind:
                self._journal.write(conn, _SIZES[turn % 4], kind="load", months=1 + 2 * (kind == 3), copy=kind == 5)

    def _sample(self) -> None:
        while not self._over.is_set():
            try:
                with psycopg.connect(self._rig.world.dsn, autocommit=True) as conn:
                    while not self._over.wait(_EVERY_S):
                        self._look(conn)
            except psycopg.OperationalError:
                self._over.wait(0.1)

    def _look(self, conn: psycopg.Connection[Any]) -> None:
        row = conn.execute(
            "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = %s",
            [self._rig.world.settings.slot],
        ).fetchone()
        assert row is not None
        confirmed = int(row[0])
        self.samples += 1
        if confirmed in self._passed:
            return
        self._passed[confirmed] = self._ask(f"SELECT count() FROM event_log WHERE cdc_lsn < {confirmed}")[0][0]
        commits = self._journal.commits[self._checked :]
        done = list(itertools.takewhile(lambda commit: commit[1] <= confirmed, commits))
        wanted = {number for ids, _ in done for number in ids}
        self._checked += len(done)
        if wanted:
            # A range, not a list: what gathers while a server is away would be more than a query may be long.
            found = self._ask(f"SELECT id FROM event_log WHERE id BETWEEN {min(wanted)} AND {max(wanted)}")
            if missing := wanted.difference(number for (number,) in found):
                self.violations.append(f"the slot is at {confirmed:X}, {len(missing)} rows before it are not stored")

    def _ask(self, query: str) -> Any:
        deadline = time.monotonic() + _ANSWER_S
        while True:
            try:
                return self._clickhouse.rows(query)
            except PipelineError:
                # ClickHouse may be the one that was taken away; nothing can be stored meanwhile.
                assert time.monotonic() < deadline, "ClickHouse does not come back"
                time.sleep(0.1)
