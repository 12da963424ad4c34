"""The reader with a sink that stores everything at once: `python -m tests.benchmarks.null_sink`.

What is measured with it is capture alone: all that the reader does, but for Redis, worker and ClickHouse.
"""

from __future__ import annotations

import queue
import random
import signal
from typing import TYPE_CHECKING, cast

from outhaul.cdc_reader.capture.stored_positions import NOTHING_STORED
from outhaul.cdc_reader.postgres.query import connect
from outhaul.cdc_reader.postgres.slot import open_link
from outhaul.cdc_reader.postgres.slot_view import confirmed_lsn
from outhaul.cdc_reader.session import memory_tuning
from outhaul.cdc_reader.session.loop import Session
from outhaul.cdc_reader.session.pause import PauseRequest
from outhaul.cdc_reader.session.recovery import Recovered
from outhaul.cdc_reader.session.threads import Tools
from outhaul.sink.report import Outcome, Report
from outhaul.sink.settings import load
from outhaul.sink.telemetry import logs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outhaul.cdc_reader.capture.assemble import Assembled
    from outhaul.cdc_reader.capture.dispatch import Dispatcher
    from outhaul.sink.batch import Message
    from outhaul.sink.redis.payloads import Payloads

_EPOCH = 1


class NullSink:
    """Takes the place of dispatcher and Redis: what is sent is stored, and reported so."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def announce_epoch(self, epoch: int) -> None:
        """Nobody asks."""

    def send(self, message: Message, assembled: Assembled) -> None:
        """Report the batch as stored."""
        del assembled
        report = Report(Outcome.STORED, message.token, message.sequence)
        self._lines.put(report.to_json().encode())

    def reports(self, _key: str, *, wait_s: int) -> list[bytes]:
        """Return the next report."""
        try:
            return [self._lines.get(timeout=wait_s)]
        except queue.Empty:
            return []

    def text(self, _key: str) -> str:
        """Return the epoch, as readers of its mirror expect it."""
        return str(_EPOCH)

    def present(self, keys: Sequence[str]) -> list[bool]:
        """All are alive."""
        return [True for _ in keys]

    def set(self, key: str, text: str, *, ttl_s: int | None = None) -> None:
        """Nobody asks."""

    def drop(self, keys: Sequence[str]) -> None:
        """Nothing is kept."""

    def length(self, _key: str) -> int:
        """Nothing ever waits."""
        return 0

    def close(self) -> None:
        """Nothing is open."""


def main() -> None:
    """Stream until SIGTERM."""
    settings = load()
    logs.configure("json")
    memory_tuning.limit_allocators()
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    dsn = settings.postgres_dsn.get_secret_value()
    link = open_link(dsn, settings.slot, settings.publication)
    link.identify()
    link.start(binary=True)
    with connect(dsn) as conn:
        confirmed = confirmed_lsn(conn, settings.slot)
    sink = NullSink()
    tools = Tools(
        link=link,
        dispatcher=cast("Dispatcher", sink),
        payloads=cast("Payloads", sink),
        recover=lambda _wait: Recovered(_EPOCH, {settings.clickhouse_table: NOTHING_STORED}),
        pause_request=PauseRequest,
        fill_views=lambda _epoch: None,
        view_flaws=lambda: (),
        random=random.random,
    )
    session = Session(settings.undivided, tools, confirmed, owner="null", status_interval_s=1.0)
    memory_tuning.freeze_objects()
    session.run(lambda: bool(asked))
    link.close()


if __name__ == "__main__":
    main()
