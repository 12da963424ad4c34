"""Settings -> the Celery app; `celery -A outhaul.sink.app worker` starts here.

Edge: the environment. The module builds the app when Celery's command line reads its attribute `app`. The time limits
agree with each other (sink/settings/settings.py checks this): an insert ends before its task's limit, and a task ends
before its message becomes visible again.

Source: https://docs.celeryq.dev/en/stable/userguide/configuration.html
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

import click
import kombu.exceptions
from billiard.exceptions import TimeLimitExceeded
from celery import Celery
from celery.loaders.app import AppLoader
from celery.signals import setup_logging, task_failure, task_postrun
from click.core import ParameterSource

from outhaul.sink import environment, redis_url
from outhaul.sink.errors import Exit, TransientError
from outhaul.sink.redis import connection, failures, topology
from outhaul.sink.redis.payloads import SOCKET_TIMEOUT_S
from outhaul.sink.redis_keys import celery_prefix
from outhaul.sink.seal import seal_of
from outhaul.sink.settings import Settings, load
from outhaul.sink.settings.load import warn_of_unknown
from outhaul.sink.task_names import PRUNE, WRITE_BATCH
from outhaul.sink.telemetry import log_context, logs, sentry, unexpected

if TYPE_CHECKING:
    from typing import Any

TRANSPORT = "outhaul.sink.redis.transport:Transport"

# How often Celery beat starts pruning, in seconds, if the settings enable pruning.
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
        | _server_options(settings),
        # The message of a worker that dies is delivered again; the token makes the second insert harmless.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # JSON only, in both directions: a received message cannot run code.
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "task_default_queue": settings.queue,
        "task_time_limit": settings.task_time_limit_s,
        "task_soft_time_limit": (settings.insert_timeout_s + settings.task_time_limit_s) / 2,
        "task_annotations": {WRITE_BATCH: {"rate_limit": settings.rate_limit or None}},
        "worker_hijack_root_logger": False,
        "imports": [
            "outhaul.sink.task",
            "outhaul.sink.letters.retry_task",
            "outhaul.sink.process.heartbeat",
            "outhaul.sink.process.probe",
        ],
        "beat_schedule": _schedule(settings),
    }


def _server_options(settings: Settings) -> dict[str, Any]:
    """Return the options by which the transport finds the server, and the prefix of its keys."""
    url, source = settings.redis_url.get_secret_value(), settings.source
    options = {"server": connection.remember(url, source), "global_keyprefix": celery_prefix(source)}
    if topology.places(url, source) is None:
        return options
    # kombu adds one second to this interval. So the broker's connections leave a server that hangs after the same time
    # as outhaul's own connections.
    return options | {"health_check_interval": SOCKET_TIMEOUT_S - 1}


def _schedule(settings: Settings) -> dict[str, Any]:
    return {"prune": {"task": PRUNE, "schedule": _PRUNE_EVERY_S}} if settings.prune_older_than is not None else {}


class _Loader(AppLoader):  # type: ignore[misc] # celery has no types
    """Imports tasks as Python does; Celery's own loader prefers files in the working directory, which are the app's."""

    def import_from_cwd(self, module: str, imp: object = None, package: str | None = None) -> Any:
        """Import a module from where it is installed."""
        del imp
        return importlib.import_module(module, package)


class SinkApp(Celery):  # type: ignore[misc] # celery has no types
    """A Celery app with the settings of its pipeline, for the tasks."""

    def __init__(self, settings: Settings) -> None:
        """Configure Celery for this pipeline."""
        environment.forget_celerys()
        # Without `fixups` and `loader`, variables of a Django app, or of another Celery app, would choose them.
        super().__init__("outhaul", loader=_Loader, fixups=())
        self.settings = settings
        self.conf.update(configuration(settings))
        self._seal = seal_of(settings)

    def send(self, task: str, argument: dict[str, Any], *, task_id: str, summary: str) -> None:
        """Put a sealed message for a task into the pipeline's queue; logs and Flower show the summary.

        Raises:
            TransientError: the broker did not take it.
        """
        try:
            self.send_task(
                task,
                args=(self._seal.message(task, argument),),
                task_id=task_id,
                queue=self.settings.queue,
                argsrepr=summary,
                retry=False,
            )
        except (kombu.exceptions.KombuError, OSError) as error:
            raise TransientError(
                f"the broker does not answer ({type(error).__name__})",
                todo="Check that Redis runs and that OUTHAUL_REDIS_URL leads to it",
                exit_code=Exit.REDIS_UNREACHABLE,
            ) from error


def make_app(settings: Settings) -> SinkApp:
    """Build the Celery app of one pipeline; the reader sends tasks with it, and a worker runs them."""
    return SinkApp(settings)


@setup_logging.connect  # type: ignore[untyped-decorator] # celery has no types
def _configure_logs(loglevel: int | str, **_: object) -> None:
    # While a receiver is connected to this signal, Celery does not configure logging itself. So a worker's lines have
    # the format of the reader's.
    settings = load()
    level = _level_name(loglevel) if _is_given("loglevel") else settings.log_level
    logs.start(settings, level=level)
    warn_of_unknown()
    sentry.configure(settings, "worker")
    failures.begin(settings, "worker")


@task_failure.connect  # type: ignore[untyped-decorator] # celery has no types
def _note_killed_task(exception: BaseException, **_: object) -> None:
    # Celery kills the process of such a task, and logs a line without an exception.
    if isinstance(exception, TimeLimitExceeded):
        unexpected.note(exception)


@task_postrun.connect  # type: ignore[untyped-decorator] # celery has no types
def _end_of_task(**_: object) -> None:
    log_context.end()


def _is_given(option: str) -> bool:
    """Tell whether the command line has this option; Celery's default level is not outhaul's."""
    context = click.get_current_context(silent=True)
    return context is not None and context.get_parameter_source(option) is ParameterSource.COMMANDLINE


def _level_name(level: int | str) -> str:
    return logging.getLevelName(level) if isinstance(level, int) else level


def __getattr__(name: str) -> object:
    # Celery's command line reads `app`. Other code can import this module without settings in the environment.
    if name == "app":
        globals()["app"] = make_app(load())
        return globals()["app"]
    raise AttributeError(name)
