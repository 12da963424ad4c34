"""Settings -> the Celery app; `celery -A outhaul.sink.app worker` starts here.

Edge: builds the app from the environment when it is imported, as Celery's command line asks for. All limits agree
with each other (sink/settings/tree.py checks it): an insert ends before its task, a task before its message becomes
visible again.

Source: https://docs.celeryq.dev/en/stable/userguide/configuration.html
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import click
from celery import Celery
from celery.signals import setup_logging, task_postrun
from click.core import ParameterSource

from outhaul.sink import redis_url
from outhaul.sink.redis import topology
from outhaul.sink.redis.payloads import SOCKET_TIMEOUT_S
from outhaul.sink.settings import Settings, load
from outhaul.sink.settings.load import warn_of_unknown
from outhaul.sink.task_names import PRUNE, WRITE_BATCH
from outhaul.sink.telemetry import log_context, logs, sentry
from outhaul.sink.telemetry.scrub import scrub_of

if TYPE_CHECKING:
    from typing import Any

TRANSPORT = "outhaul.sink.redis.transport:Transport"

# How often Celery beat asks for a pass of pruning, in seconds, where the settings want any.
_PRUNE_EVERY_S = 600


def configuration(settings: Settings) -> dict[str, Any]:
    """Return Celery's configuration for one pipeline."""
    url = settings.redis_url.get_secret_value()
    return {
        "broker_url": redis_url.broker_url(url),
        "broker_use_ssl": redis_url.client_options(url) or None,
        "broker_transport": TRANSPORT,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "visibility_timeout": int(settings.visibility_timeout_s),
            "socket_timeout": SOCKET_TIMEOUT_S,
            "socket_connect_timeout": SOCKET_TIMEOUT_S,
            "socket_keepalive": True,
            "health_check_interval": 10,
        }
        | _where(url, settings.source),
        # A message that a dead worker held comes back; the token makes the second insert harmless.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # JSON only, in both directions: nothing that is received can run.
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "task_default_queue": settings.queue,
        "task_time_limit": settings.task_time_limit_s,
        "task_soft_time_limit": (settings.insert_timeout_s + settings.task_time_limit_s) / 2,
        "task_annotations": {WRITE_BATCH: {"rate_limit": settings.rate_limit or None}},
        "worker_hijack_root_logger": False,
        "imports": ["outhaul.sink.task", "outhaul.sink.letters.retry_task", "outhaul.sink.process.heartbeat"],
        "beat_schedule": _schedule(settings),
    }


def _where(url: str, source: str) -> dict[str, Any]:
    """Return how our transport finds the server, where Sentinels or a cluster are asked for it."""
    if topology.places(url, source) is None:
        return {}
    # A server that hangs is left for the next as soon as by our own connections: kombu adds a second to this one.
    interval = {"health_check_interval": SOCKET_TIMEOUT_S - 1}
    return interval | {"places": topology.name(url, source), "global_keyprefix": redis_url.key_prefix(url, source)}


def _schedule(settings: Settings) -> dict[str, Any]:
    return {"prune": {"task": PRUNE, "schedule": _PRUNE_EVERY_S}} if settings.prune_older_than else {}


class SinkApp(Celery):  # type: ignore[misc] # celery has no types
    """A Celery app that carries the settings of its pipeline to the tasks."""

    def __init__(self, settings: Settings) -> None:
        """Configure the app."""
        super().__init__("outhaul")
        self.settings = settings
        self.conf.update(configuration(settings))


def make_app(settings: Settings) -> SinkApp:
    """Build the Celery app of one pipeline; the reader uses it to send, a worker to run."""
    return SinkApp(settings)


@setup_logging.connect  # type: ignore[untyped-decorator] # celery has no types
def _configure_logs(loglevel: int | str, **_: object) -> None:
    # Connected, Celery leaves logging alone, and a worker's lines look like the reader's.
    settings = load()
    level = _spell_level(loglevel) if _is_asked_for("loglevel") else settings.log_level
    logs.configure(settings.log_format, level=level, scrub=scrub_of(settings))
    logs.watch_threads()
    warn_of_unknown()
    log_context.begin(source=settings.source)
    sentry.configure(settings, "worker")


@task_postrun.connect  # type: ignore[untyped-decorator] # celery has no types
def _end_of_task(**_: object) -> None:
    log_context.end()


def _is_asked_for(option: str) -> bool:
    """Tell whether somebody typed the option, since Celery's own default would be another level than ours."""
    context = click.get_current_context(silent=True)
    return context is not None and context.get_parameter_source(option) is ParameterSource.COMMANDLINE


def _spell_level(level: int | str) -> str:
    return logging.getLevelName(level) if isinstance(level, int) else level


def __getattr__(name: str) -> object:
    # Celery's command line looks for `app`; building it only then lets others import this module without an
    # environment.
    if name == "app":
        globals()["app"] = make_app(load())
        return globals()["app"]
    raise AttributeError(name)
