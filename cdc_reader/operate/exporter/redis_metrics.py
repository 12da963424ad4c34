"""Redis, the queue in it, and the workers that answer -> metrics.

Edge: Redis, and Celery's remote control through it. Workers of other pipelines on the same Redis are not counted.

Source: https://redis.io/docs/latest/commands/info/
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError
from redis import RedisError

from outhaul.cdc_reader.operate.exporter.metric_family import counter, gauge, gauges
from outhaul.cdc_reader.session.reader_state import STALE_S, TTL_S
from outhaul.sink.app import make_app
from outhaul.sink.errors import Exit, TransientError
from outhaul.sink.redis.failures import PROCESSES, recent
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.redis_keys import reader_key

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from outhaul.sink.settings import Settings

# The number of workers is not known, so each poll waits this long for answers, in seconds.
_ANSWER_S = 1.0


class RedisMetrics:
    """Polls one Redis."""

    def __init__(self, settings: Settings) -> None:
        """Keep the address; no connection is opened yet."""
        self._settings = settings
        self._payloads = Payloads.of(settings)

    def collect(self) -> list[Metric]:
        """Poll once.

        Raises:
            PipelineError: Redis refuses or does not answer.
        """
        begun_at = time.monotonic()
        queued = self._payloads.length(self._settings.queue_key)
        ping_s = time.monotonic() - begun_at
        streams = self._settings.streams()
        states = [self._payloads.text_and_age(reader_key(stream.fence), TTL_S) for stream in streams]
        reporting = all(line is not None and age_s < STALE_S for line, age_s in states)
        failed = dict.fromkeys(PROCESSES, 0)
        for failure in recent(self._payloads, self._settings):
            failed[failure.process] += not failure.is_end
        info = self._payloads.info()
        return [
            gauge("redis_ping_seconds", "Time of one round trip to Redis", ping_s),
            gauge("redis_memory_used_bytes", "Memory that Redis uses", info.get("used_memory")),  # type: ignore[arg-type]
            gauge("redis_memory_limit_bytes", "maxmemory; 0 without a limit", info.get("maxmemory")),  # type: ignore[arg-type]
            counter("redis_evicted_keys", "Keys that Redis evicted to free memory", info.get("evicted_keys")),  # type: ignore[arg-type]
            gauge("queue_messages", "Batches that wait in Celery's queue for a worker", queued),
            gauge(
                "reader_reporting", "1 while the reader of each stream has a session and reports to Redis", reporting
            ),
            gauges(
                "unexpected_failures",
                "Hosts on which a process failed in the last five minutes in a way that nobody foresaw",
                "process",
                failed,
            ),
        ]


class CeleryMetrics:
    """Counts the workers that take messages from the pipeline's queue."""

    def __init__(self, settings: Settings) -> None:
        """Create an app for this thread alone."""
        self._app = make_app(settings)
        self._queue, self._queue_key = settings.queue, settings.queue_key
        self._payloads = Payloads.of(settings)

    def collect(self) -> list[Metric]:
        """Poll once; takes a second.

        Raises:
            PipelineError: Redis refuses or does not answer.
        """
        # First, because Celery retries for a long time before it reports that Redis does not answer.
        self._payloads.length(self._queue_key)
        try:
            answers: dict[str, list[dict[str, Any]]] = (
                self._app.control.inspect(timeout=_ANSWER_S).active_queues() or {}
            )
        except (OperationalError, RedisError, OSError) as error:
            raise TransientError(f"Redis does not answer Celery ({error})", exit_code=Exit.REDIS_UNREACHABLE) from error
        ours = [name for name, queues in answers.items() if any(one["name"] == self._queue for one in queues or [])]
        return [gauge("celery_workers", "Celery workers of this pipeline that answer", len(ours))]
