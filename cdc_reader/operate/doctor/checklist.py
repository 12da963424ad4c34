"""Settings -> all findings, by server.

Edge: asks all servers at the same time, each in its own thread and with a time limit. A server that does not answer is
one failed check in its section; the other sections are complete.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from outhaul.cdc_reader.operate.doctor import (
    clickhouse_checks,
    clickhouse_tables,
    clock_offsets,
    column_match,
    environment_checks,
    monitoring_checks,
    postgres_checks,
    redis_checks,
    standby_checks,
    timeline_checks,
    view_checks,
    worker_checks,
)
from outhaul.cdc_reader.operate.doctor.finding import Finding, Section, broken, fail, fine, warn
from outhaul.cdc_reader.postgres.connect import has_stream_dsn
from outhaul.cdc_reader.postgres.preflight import apart_todo, why_not_apart
from outhaul.sink.errors import PipelineError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from outhaul.cdc_reader.operate.doctor.clickhouse_checks import ClickHouseFacts
    from outhaul.cdc_reader.operate.doctor.postgres_checks import PostgresFacts
    from outhaul.cdc_reader.operate.doctor.redis_checks import RedisFacts
    from outhaul.cdc_reader.operate.doctor.standby_checks import StandbyFacts
    from outhaul.sink.settings import Outbox, Settings


# Each server has its own time limit of a few seconds; this is the limit for all of them together.
WITHIN_S = 10.0

_Answer = TypeVar("_Answer")


def examine(settings: Settings, *, within_s: float = WITHIN_S) -> list[Section]:
    """Ask all servers and judge the answers; takes at most `within_s` seconds. An error of a server does not raise."""
    deadline = time.monotonic() + within_s
    first, *streams = settings.streams()
    outboxes = settings.outboxes()
    asked = (
        begin(lambda: postgres_checks.ask(first, outboxes)),
        begin(lambda: clickhouse_checks.ask(first, outboxes)),
        begin(lambda: redis_checks.ask(settings)),
        begin(lambda: worker_checks.ask(settings)),
        begin(lambda: monitoring_checks.ask(settings)),
    )
    of_standby = begin(partial(standby_checks.ask, settings)) if has_stream_dsn(settings) else None
    # The first outbox is asked about together with the pipeline as a whole; each further one has its own section.
    further = [
        (
            outbox,
            begin(partial(postgres_checks.ask, settings.undivided, (outbox,))),
            begin(partial(clickhouse_checks.ask, settings.undivided, (outbox,))),
        )
        for outbox in outboxes[1:]
    ]
    pg = answer(asked[0], "Postgres", deadline, within_s)
    ch = answer(asked[1], "ClickHouse", deadline, within_s)
    rd = answer(asked[2], "Redis", deadline, within_s)
    workers = answer(asked[3], "Celery", deadline, within_s)
    others = answer(asked[4], "Sentry or the metrics port", deadline, within_s)
    of_shards = [(stream, begin(partial(postgres_checks.ask, stream, outboxes))) for stream in streams]
    shards = []
    for stream, of_stream in of_shards:
        found = answer(of_stream, "Postgres", deadline, within_s)
        shards.append(_section(f"Shard {stream.shard}", found, partial(postgres_checks.judge_stream, stream=stream)))
    beside = []
    for outbox, of_pg, of_ch in further:
        theirs, ours = answer(of_pg, "Postgres", deadline, within_s), answer(of_ch, "ClickHouse", deadline, within_s)
        beside.append(Section(f"Outbox {outbox.table}", tuple(_outbox(outbox, theirs, ours))))
    variables = tuple(environment_checks.judge(settings))
    return [
        _section("Postgres", pg, lambda found: postgres_checks.judge(found, first, outboxes[0])),
        *shards,
        *_standby(of_standby, settings, deadline, within_s),
        Section("Both sides", tuple(_both(pg, ch, outboxes[0]))),
        *beside,
        _section("ClickHouse", ch, lambda found: clickhouse_checks.judge(found, settings)),
        _section("Redis", rd, redis_checks.judge),
        _section("Celery", workers, lambda found: worker_checks.judge(found, settings)),
        Section("Clocks", (_clocks(Postgres=pg, ClickHouse=ch, Redis=rd),)),
        *([_section("Monitoring", others, tuple)] if others else []),
        *([Section("Environment", variables)] if variables else []),
    ]


def begin(ask: Callable[[], _Answer]) -> Future[_Answer]:
    """Run a question in a daemon thread; the process can end without it."""
    future: Future[_Answer] = Future()

    def run() -> None:
        try:
            future.set_result(ask())
        except BaseException as error:  # noqa: BLE001 - `answer` raises it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def answer(asked: Future[_Answer], who: str, deadline: float, within_s: float) -> _Answer | PipelineError:
    """Return the answer, or the `PipelineError` that was raised; waits until `deadline` by the monotonic clock."""
    try:
        return asked.result(max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        return TransientError(f"{who} has not answered within {within_s:g} s", todo="Try again when it is less busy")
    except PipelineError as error:
        return error


def _section(group: str, found: _Answer | PipelineError, judge: Callable[[_Answer], Iterable[Finding]]) -> Section:
    if isinstance(found, PipelineError):
        return Section(group, (broken("answers", found),))
    return Section(group, tuple(judge(found)))


def _standby(
    asked: Future[StandbyFacts] | None, settings: Settings, deadline: float, within_s: float
) -> Iterator[Section]:
    """Judge the server of OUTHAUL_STREAM_DSN, if that is set."""
    if asked is not None:
        found = answer(asked, "the standby, or its primary,", deadline, within_s)
        yield _section("Standby", found, lambda answered: standby_checks.judge(answered, settings))


def _both(pg: PostgresFacts | PipelineError, ch: ClickHouseFacts | PipelineError, outbox: Outbox) -> Iterable[Finding]:
    compared = [*_columns(pg, ch), *_apart(pg, ch, outbox)]
    if isinstance(pg, PipelineError) or isinstance(ch, PipelineError) or isinstance(pg.link, PipelineError):
        return compared
    if pg.outbox is None or isinstance(ch.stored, PipelineError):
        return compared
    return [timeline_checks.judge(pg.link, ch.stored.epoch), *compared]


def _columns(pg: PostgresFacts | PipelineError, ch: ClickHouseFacts | PipelineError) -> Iterable[Finding]:
    if isinstance(pg, PipelineError) or isinstance(ch, PipelineError):
        return [warn("comparison", "skipped, because a server does not answer")]
    if pg.outbox is None or isinstance(ch.stored, PipelineError):
        return [warn("comparison", "skipped, because a table is missing", "outhaul setup")]
    return column_match.judge(pg.columns, ch.stored.columns, ch.stored.events)


def _apart(pg: PostgresFacts | PipelineError, ch: ClickHouseFacts | PipelineError, outbox: Outbox) -> Iterator[Finding]:
    """Judge whether merges keep the events of an outbox apart; nothing to judge if they never replace a row."""
    if isinstance(pg, PipelineError) or isinstance(ch, PipelineError) or isinstance(ch.stored, PipelineError):
        return
    events = ch.stored.events
    if pg.outbox is None or not events.relies_on_ids:
        return
    if why := why_not_apart(events, outbox, pg.unique_keys):
        yield fail("unique ids", why, apart_todo(outbox))
    else:
        yield fine("unique ids", f"a unique index of {outbox.table} keeps events apart in {events.name}")


def _outbox(
    outbox: Outbox, pg: PostgresFacts | PipelineError, ch: ClickHouseFacts | PipelineError
) -> Iterator[Finding]:
    """Judge a further outbox: its tables on both sides, and their columns."""
    if not isinstance(pg, PipelineError):
        yield from postgres_checks.judge_outbox(pg, outbox, outbox.settings.publication)
    if not isinstance(ch, PipelineError) and not isinstance(ch.stored, PipelineError):
        yield from clickhouse_tables.engines(
            ch.stored.events, ch.stored.letters, outbox.settings, ch.stored.other_source
        )
        yield from view_checks.judge(ch.stored.views, ch.stored.events, outbox.settings)
        yield clickhouse_tables.dead_letters(ch.stored.dead_letters, ch.stored.letters.name)
    yield from _columns(pg, ch)
    yield from _apart(pg, ch, outbox)


def _clocks(
    **answers: PostgresFacts | ClickHouseFacts | RedisFacts | PipelineError,
) -> Finding:
    return clock_offsets.judge({name: one.clock for name, one in answers.items() if not isinstance(one, PipelineError)})
