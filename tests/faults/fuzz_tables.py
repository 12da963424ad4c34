"""Outboxes of every kind -> ClickHouse has what was inserted, or outhaul refuses the table and says why.

    python -m tests.faults.fuzz_tables --tables 500 --seed 1

Seeded, so that a finding comes back: `--seed N --only I` runs table I alone. A trigger on the table, the oracle, writes
down what is inserted, as the types' own output functions print it. Reader and workers are threads of this process, so
a table costs about a second.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import redis
import structlog

from outhaul.cdc_reader import reader
from outhaul.cdc_reader.operate.setup import apply_clickhouse, apply_postgres
from outhaul.cdc_reader.outbox.heal import heal, verify
from outhaul.cdc_reader.outbox.id_ranges import Scope
from outhaul.cdc_reader.outbox.snapshot import behind_the_slot
from outhaul.deploy.local.stack import Stack
from outhaul.sink import task, trial
from outhaul.sink.app import make_app
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import PipelineError
from outhaul.sink.quoting import clickhouse_identifier
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.redis_keys import reader_key
from outhaul.sink.settings import load_from
from outhaul.sink.telemetry import logs, unexpected
from tests import roles
from tests.conftest import create_databases, until
from tests.faults.fuzz_outbox import Op, Plan, Step, plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from outhaul.sink.settings import Settings

WITHIN_S = 60.0
_SHOWN = 300
_ORACLE = """
    CREATE EXTENSION hstore;
    CREATE EXTENSION citext;
    CREATE EXTENSION ltree;
    CREATE SCHEMA oracle;
    CREATE TABLE oracle.rows (n bigserial PRIMARY KEY, row jsonb NOT NULL, types jsonb NOT NULL);
    CREATE FUNCTION oracle.note() RETURNS trigger LANGUAGE plpgsql
    SET datestyle = 'ISO' SET timezone = 'UTC' SET intervalstyle = 'iso_8601' SET extra_float_digits = 1
    SET bytea_output = 'hex' SET search_path = 'public' AS $$
    BEGIN
        IF current_setting('fuzz.moves', true) = 'on' THEN RETURN NULL; END IF;
        INSERT INTO oracle.rows (row, types)
        SELECT hstore_to_jsonb(hstore(NEW)), jsonb_object_agg(attname, atttypid::regtype::text)
        FROM pg_attribute WHERE attrelid = TG_RELID AND attnum > 0 AND NOT attisdropped;
        RETURN NULL;
    END $$;
"""
_AS_ORACLE = """
    SET datestyle = 'ISO'; SET timezone = 'UTC'; SET intervalstyle = 'iso_8601'; SET extra_float_digits = 1;
    SET bytea_output = 'hex'; SET search_path = 'public';
"""
_MODIFY = re.compile(r"ALTER TABLE \S+ MODIFY COLUMN [^;]*")


@dataclass
class Outcome:
    """What came of one table: why it is refused, or why `outhaul verify` refuses it; its events; or a failure."""

    refused: str = ""
    not_verified: str = ""
    events: int = 0
    letters: int = 0
    failure: str = ""


@dataclass
class Found:
    """What a run has found."""

    tables: int = 0
    events: int = 0
    letters: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    not_verified: Counter[str] = field(default_factory=Counter)
    traits: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


class Threads:
    """Reader and worker of one pipeline, as threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.error: BaseException | None = None
        self._over, self._stop = threading.Event(), threading.Event()
        self._app = make_app(settings)
        self._worker = threading.Thread(target=self._work, daemon=True)
        self._worker.start()
        self._reader = threading.Thread()

    def start_reader(self) -> None:
        self.error = None
        self._stop.clear()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def stop_reader(self) -> None:
        self._stop.set()
        if self._reader.ident is not None:
            self._reader.join(WITHIN_S)

    def end(self) -> None:
        self.stop_reader()
        self._over.set()
        self._worker.join(WITHIN_S)
        # The next app may have the same id.
        task._opened.pop(id(self._app), None)

    def _read(self) -> None:
        try:
            reader.run(self._settings.undivided, self._stop.is_set)
        except BaseException as error:  # noqa: BLE001 - the outermost line of a thread
            self.error = error

    def _work(self) -> None:
        with redis.Redis.from_url(self._settings.redis_url.get_secret_value()) as client:
            while not self._over.is_set():
                found: Any = client.brpop([self._settings.queue_key], timeout=0.2)
                if found is not None:
                    message = json.loads(found[1])
                    arguments, named, _ = json.loads(base64.b64decode(message["body"]))
                    headers = message["headers"]
                    self._app.tasks[headers["task"]].apply(arguments, named, task_id=headers["id"], throw=False)


class Bench:
    """Servers of its own, whose Postgres prepares transactions, too."""

    def __init__(self, folder: Path) -> None:
        self.stack = Stack(folder)
        self.stack.up()
        with psycopg.connect(self.stack.env()["OUTHAUL_POSTGRES_DSN"], autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET max_prepared_transactions = 20")
        self.stack.down(["postgres"])
        self.stack.up()
        self.unexpected: list[str] = []
        root = logging.getLogger()
        self._before = root.handlers, root.level, unexpected._listen
        logs.configure("json", level="CRITICAL")
        unexpected.begin(lambda error: self.unexpected.append("".join(traceback.format_exception(error))))

    def close(self) -> None:
        """End the servers, and let this process log as before."""
        root = logging.getLogger()
        root.handlers, root.level, unexpected._listen = self._before
        structlog.reset_defaults()
        self.stack.down()

    def run(self, made: Plan, name: str) -> Outcome:
        """Carry out a plan in databases of its own."""
        self.unexpected.clear()
        with self._databases(made, name) as env:
            loaded = load_from(env)
            with (
                ClickHouse(env["OUTHAUL_CLICKHOUSE_URL"], timeout_s=60) as clickhouse,
                psycopg.connect(env["OUTHAUL_POSTGRES_DSN"], autocommit=True) as conn,
            ):
                outcome = _run(made, loaded, load_from(roles.for_processes(env)), clickhouse, conn)
        if self.unexpected and not outcome.failure:
            outcome.failure = f"an exception that nobody foresaw: {self.unexpected[0]}"
        return outcome

    @contextlib.contextmanager
    def _databases(self, made: Plan, name: str) -> Iterator[dict[str, str]]:
        env = create_databases(self.stack, name) | {
            "OUTHAUL_REDIS_URL": self.stack.env()["OUTHAUL_REDIS_URL"],
            "OUTHAUL_TABLE": made.table,
            "OUTHAUL_LINGER_S": "0.05",
            "OUTHAUL_STATUS_INTERVAL_S": "0.2",
            "OUTHAUL_RETRY_MAX_S": "1",
        }
        try:
            yield env
        finally:
            admin = self.stack.env()["OUTHAUL_POSTGRES_DSN"]
            with psycopg.connect(admin, autocommit=True) as conn:
                until(lambda: _drop_slot(conn, name), what=f"slot {name} is dropped")
                conn.execute(f"DROP DATABASE {name} WITH (FORCE)")
            ClickHouse(self.stack.env()["OUTHAUL_CLICKHOUSE_URL"], timeout_s=60).command(f"DROP DATABASE {name}")


def _drop_slot(conn: psycopg.Connection[Any], name: str) -> bool:
    try:
        conn.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [name]
        )
    except psycopg.errors.ObjectInUse:
        return False
    return True


def _run(
    made: Plan, owner: Settings, settings: Settings, clickhouse: ClickHouse, conn: psycopg.Connection[Any]
) -> Outcome:
    conn.execute(_ORACLE)
    for statement in made.create:
        conn.execute(statement.encode())
    for table in (owner.outboxes()[0].sql_table, *made.children):
        conn.execute(
            f"CREATE TRIGGER zz_oracle AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION oracle.note()".encode()
        )
    try:
        apply_clickhouse(clickhouse, owner, lambda _: None)
        apply_postgres(owner, lambda _: None)
    except PipelineError as error:
        return Outcome(refused=_reason(error))
    trial.record(clickhouse, owner, trial.proof_of(clickhouse, owner))
    for name, value in made.role_settings.items():
        conn.execute(f"ALTER ROLE {roles.READER} IN DATABASE {owner.slot} SET {name} = '{value}'".encode())
    threads = Threads(settings)
    try:
        return _stream(made, settings, clickhouse, conn, threads)
    finally:
        threads.end()


def _stream(
    made: Plan, settings: Settings, clickhouse: ClickHouse, conn: psycopg.Connection[Any], threads: Threads
) -> Outcome:
    threads.start_reader()
    with Payloads.of(settings) as payloads:
        until(
            lambda: threads.error or '"streaming"' in (payloads.text(reader_key(settings.source)) or ""),
            within_s=WITHIN_S,
            what="the reader streams or refuses",
        )
        if isinstance(threads.error, PipelineError):
            return Outcome(refused=_reason(threads.error))
        payloads.drop([reader_key(settings.source)])
    for name, value in made.app_settings.items():
        conn.execute(f"SET {name} = '{value}'".encode())
    # What was prepared keeps its locks.
    conn.execute("SET lock_timeout = '300ms'")
    for step in made.steps:
        if step.end == "restart":
            threads.stop_reader()
            threads.start_reader()
        else:
            carry_out(step, conn)
    conn.execute("RESET ALL")
    expected = conn.execute("SELECT row, types FROM oracle.rows ORDER BY n").fetchall()
    failure = _wait(settings, clickhouse, conn, threads, len(expected))
    if failure:
        return Outcome(events=len(expected), failure=failure)
    stored, letters = stored_rows(clickhouse, settings), letter_rows(clickhouse, settings)
    failure = differences(expected, stored, letters, made.virtual)
    outcome = Outcome(events=len(expected), letters=len(letters), failure=failure)
    if not outcome.failure:
        _verify(settings, outcome, [(row["id"], row["event_date_time"]) for row, _ in expected])
    if not outcome.failure and not outcome.not_verified:
        _copy(made, settings, clickhouse, conn, outcome)
    return outcome


def _copy(
    made: Plan, settings: Settings, clickhouse: ClickHouse, conn: psycopg.Connection[Any], outcome: Outcome
) -> None:
    """Empty ClickHouse, and copy what is in the outbox now: the values are those of the stream."""
    outbox = settings.outboxes()[0]
    for table in (outbox.clickhouse_table, outbox.dead_letters_table):
        clickhouse.command(f"TRUNCATE TABLE {table}")
    conn.execute(_AS_ORACLE)
    expected = conn.execute(
        "SELECT hstore_to_jsonb(hstore(t)), (SELECT jsonb_object_agg(attname, atttypid::regtype::text) "
        "FROM pg_attribute WHERE attrelid = t.tableoid AND attnum > 0 AND NOT attisdropped) "
        f"FROM {outbox.sql_table} AS t".encode()
    ).fetchall()
    try:
        with behind_the_slot(settings.streams(), within_s=WITHIN_S) as line:
            heal(outbox, settings.undivided, line, Scope(), give_up_s=WITHIN_S)
    except PipelineError as error:
        outcome.failure = f"a copy fails: {error}"
        return
    stored, letters = stored_rows(clickhouse, settings), letter_rows(clickhouse, settings)
    if failure := differences(expected, stored, letters, made.virtual):
        outcome.failure = f"copied: {failure}"


def _verify(settings: Settings, outcome: Outcome, events: Sequence[tuple[str | None, str | None]]) -> None:
    """Compare as `outhaul verify` does: nothing is missing, and nothing is stored twice.

    Of two `events` with one id and one time, `verify` calls the second one a repetition.
    """
    try:
        with behind_the_slot(settings.streams(), within_s=WITHIN_S) as line:
            tally = verify(settings.outboxes()[0], line, Scope(), lambda *_: None)
    except PipelineError as error:
        outcome.not_verified = _reason(error)
        return
    if tally.missing or (tally.repeated and len(set(events)) == len(events)):
        outcome.failure = f"`outhaul verify` finds {tally.missing} missing, {tally.repeated} repeated: {tally.ids}"


def _reason(error: PipelineError) -> str:
    return error.message or "no reason"


def carry_out(step: Step, conn: psycopg.Connection[Any]) -> None:
    """Carry out a transaction; a statement that Postgres refuses is left out."""
    if step.end.endswith("PREPARED"):
        with contextlib.suppress(psycopg.Error):
            conn.execute(f"{step.end} '{conn.info.dbname} {step.name}'".encode())
        return
    conn.execute("BEGIN")
    try:
        for op in step.ops:
            conn.execute("SAVEPOINT op")
            try:
                _execute(op, conn)
            except psycopg.Error:
                conn.execute("ROLLBACK TO SAVEPOINT op")
        end = f"PREPARE TRANSACTION '{conn.info.dbname} {step.name}'" if step.end == "prepare" else step.end.upper()
        conn.execute(end.encode())
    except psycopg.Error:
        conn.execute("ROLLBACK")


def _execute(op: Op, conn: psycopg.Connection[Any]) -> None:
    if op.rows is None:
        conn.execute(op.sql.encode(), op.values or None)
        return
    with conn.cursor() as cursor, cursor.copy(op.sql.encode()) as copy:
        for row in op.rows:
            copy.write_row(row)


def _wait(
    settings: Settings, clickhouse: ClickHouse, conn: psycopg.Connection[Any], threads: Threads, expected: int
) -> str:
    """Wait until the slot has passed all that was committed; return why it does not."""
    end = conn.execute("SELECT pg_current_wal_lsn()").fetchone()
    deadline = time.monotonic() + WITHIN_S
    modified = 0
    while True:
        if threads.error is not None:
            statement = _MODIFY.search(str(getattr(threads.error, "todo", "")))
            if statement is None or modified == expected + 10:
                return f"the reader stopped: {type(threads.error).__name__}: {threads.error}"
            # The reader says what an operator types, and to start it again.
            modified += 1
            clickhouse.command(statement[0])
            threads.start_reader()
        row = conn.execute(
            "SELECT confirmed_flush_lsn >= %s FROM pg_replication_slots WHERE slot_name = %s",
            [end and end[0], settings.slot],
        ).fetchone()
        if row and row[0]:
            return ""
        if time.monotonic() > deadline:
            return f"the slot has not passed the last commit within {WITHIN_S:g} s"
        time.sleep(0.02)


def stored_rows(clickhouse: ClickHouse, settings: Settings) -> list[dict[str, tuple[str, str | None]]]:
    """Return the rows of event_log: type and text of each column, those of a String in hex."""
    columns = clickhouse.rows(
        "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = 'event_log' "
        "AND NOT startsWith(name, 'cdc_') ORDER BY position"
    )
    shown = [
        # The embedded engine prints 1.5e300 as 1.5e30.
        f"if(isNull({one}), NULL, {'hex' if 'String' in kind else '' if 'Float' in kind else 'toString'}({one}))"
        for name, kind in columns
        for one in [clickhouse_identifier(str(name))]
    ]
    rows = clickhouse.rows(f"SELECT {', '.join(shown)} FROM {settings.clickhouse_table}")
    return [
        {
            str(name): (str(kind), None if cell is None else str(cell))
            for (name, kind), cell in zip(columns, row, strict=True)
        }
        for row in rows
    ]


def letter_rows(clickhouse: ClickHouse, settings: Settings) -> list[dict[str, str | None]]:
    """Return the rows that were set aside, as Postgres prints them."""
    table = settings.outboxes()[0].dead_letters_table
    return [json.loads(row) for (row,) in clickhouse.rows(f"SELECT row FROM {table}")]


def differences(
    expected: Sequence[tuple[dict[str, str | None], dict[str, str]]],
    stored: Sequence[dict[str, tuple[str, str | None]]],
    letters: Sequence[dict[str, str | None]],
    virtual: set[str],
) -> str:
    """Return what the pipeline has otherwise than the oracle; empty if both have the same."""
    by_id: dict[str, list[dict[str, tuple[str, str | None]]]] = {}
    for kept in stored:
        by_id.setdefault(str(kept["id"][1]), []).append(kept)
    aside: dict[str, list[dict[str, str | None]]] = {}
    for letter in letters:
        aside.setdefault(str(letter["id"]), []).append(letter)
    for row, types in expected:
        number = str(row["id"])
        here, letters_here = by_id.get(number, []), aside.get(number, [])
        reasons = [_why_other(row, types, found, virtual) for found in here]
        if "" in reasons:
            del here[reasons.index("")]
        elif any(_is_letter(row, letter, virtual) for letter in letters_here):
            del letters_here[[_is_letter(row, letter, virtual) for letter in letters_here].index(True)]
        else:
            return f"event {number} is missing{': ' + '; '.join(reasons) if reasons else ''}: {row}"
    if left := [number for number, rows in by_id.items() if rows]:
        return f"events that nobody inserted, or twice: {left[:10]}"
    if left := [number for number, rows in aside.items() if rows]:
        return f"dead letters that nobody inserted, or twice: {left[:10]}"
    return ""


def _why_other(
    row: dict[str, str | None], types: dict[str, str], stored: dict[str, tuple[str, str | None]], virtual: set[str]
) -> str:
    for name, text in row.items():
        if name == "processed" or (name in virtual and name not in stored):
            continue
        if name not in stored:
            return f"column {name} is not stored"
        kind, cell = stored[name]
        if text is None and (cell is None or name == "event_date_time"):
            continue
        if text is None or cell is None or not same(text, types[name], kind, cell):
            return f"column {name} ({types[name]}, {kind}) is {cell!r:.{_SHOWN}}, not {text!r:.{_SHOWN}}"
    return ""


def _is_letter(row: dict[str, str | None], letter: dict[str, str | None], virtual: set[str]) -> bool:
    return all(letter.get(name) == text for name, text in row.items() if name not in virtual | {"processed"})


def same(text: str, of: str, kind: str, cell: str) -> bool:
    """Tell whether a value of ClickHouse is what Postgres has printed."""
    bare = kind.removeprefix("LowCardinality(").removeprefix("Nullable(").rstrip(")")
    if "String" in kind:
        found = bytes.fromhex(cell)
        return found == (bytes.fromhex(text[2:]) if of == "bytea" else text.encode())
    if bare == "Bool":
        return cell == {"t": "true", "f": "false"}[text]
    if bare.startswith("Float"):
        wide = np.float32 if bare == "Float32" else np.float64
        return bool(np.array_equal(wide(text), wide(cell), equal_nan=True))
    if bare.startswith("DateTime64"):
        whole, _, rest = text.partition("+00")[0].partition(".")
        if of == "date":
            whole += " 00:00:00"
        return not rest.strip("0123456789") and cell == f"{whole}.{rest.ljust(6, '0')}"
    if bare.startswith("Decimal"):
        with contextlib.suppress(InvalidOperation):
            return Decimal(text) == Decimal(cell)
        return False
    return text == cell


def run(
    tables: int,
    seed: int,
    bench: Bench,
    *,
    only: int | None = None,
    without: frozenset[str] = frozenset(),
    verbose: bool = False,
) -> Found:
    """Try some tables; a table whose failure is found does not end the run."""
    found = Found()
    for number in range(tables) if only is None else [only]:
        made, begun_at = plan(seed, number, without=without), time.monotonic()
        try:
            outcome = bench.run(made, f"z{os.getpid()}_{number}")
        except Exception:  # noqa: BLE001 - a finding as any other
            outcome = Outcome(failure=traceback.format_exc())
        found.tables += 1
        if verbose:
            print(
                f"table {number}: {outcome.refused or outcome.failure[:80] or 'equal'}",
                f"{time.monotonic() - begun_at:.2f} s",
            )
        found.events += outcome.events
        found.letters += outcome.letters
        found.traits.update(made.traits)
        if outcome.refused:
            found.refused[outcome.refused.replace(made.table, "TABLE")] += 1
        if outcome.not_verified:
            found.not_verified[outcome.not_verified.replace(made.table, "TABLE")] += 1
        if outcome.failure:
            found.failures.append(
                f"table {number} of seed {seed} ({', '.join(sorted(made.traits))}): {outcome.failure}"
            )
            print(found.failures[-1], file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int)
    given = parser.parse_args()
    begun_at = time.monotonic()
    # The servers end with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="outhaul-fuzz-") as folder:
        bench = Bench(Path(folder))
        try:
            found = run(given.tables, given.seed, bench, only=given.only, verbose=True)
        finally:
            bench.close()
    seconds = time.monotonic() - begun_at
    print(f"{found.tables} tables, {found.events} events, {found.letters} dead letters, {seconds:.0f} s")
    for counts in (found.traits, found.refused, found.not_verified):
        for what, count in counts.most_common():
            print(f"{count:6} {what}")
    sys.exit(f"{len(found.failures)} failures" if found.failures else 0)


if __name__ == "__main__":
    main()
