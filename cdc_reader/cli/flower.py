"""`outhaul flower` -> Flower, the web view of Celery, for the pipeline's queue; a separate, read-only process.

Edge: the command line.

Source: https://flower.readthedocs.io/en/latest/config.html
"""

from __future__ import annotations

import ipaddress
import os
import threading
from contextlib import suppress
from typing import Annotated
from urllib.parse import quote

import typer
from kombu.connection import Connection
from redis import RedisError

from outhaul.cdc_reader.cli import options
from outhaul.sink import redis_url
from outhaul.sink.app import TRANSPORT, make_app
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.redis import failures, topology
from outhaul.sink.settings import Settings, load
from outhaul.sink.settings.variables import FLOWER, PREFIX, is_of_service
from outhaul.sink.telemetry import logs, sentry

# Nearly all tasks have the same name, so it is left out; the arguments identify the batch.
_COLUMNS = "uuid,state,args,retries,runtime,received,worker"
# Prefix of the variables that Flower reads itself, and those of its logins.
_FLOWERS = "FLOWER_"
_LOGINS = (f"{_FLOWERS}BASIC_AUTH", f"{_FLOWERS}AUTH")
# Flower's threads may wait for a Redis that does not answer; the process does not wait longer than this for them.
_STOP_S = 3.0


def flower(
    context: typer.Context,
    *,
    host: Annotated[str, typer.Option(help="Address to listen on; no login unless you set one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5555,
    max_tasks: Annotated[int, typer.Option(min=1, help="Newest batches to keep in memory.")] = 10_000,
    purge_offline_workers: Annotated[
        float,
        typer.Option(
            parser=options.duration(), metavar="DURATION", help="Hide a worker this long after it has gone offline."
        ),
    ] = 600,
    read_only: Annotated[
        bool, typer.Option(help="Hide the buttons that revoke batches and stop or change workers.")
    ] = True,
) -> None:
    """Show workers, batches and queue in a browser, with Flower and its options. The pipeline does not depend on it.

    Example: outhaul flower --port 5555
    """
    settings = load()
    logs.start(settings)
    sentry.configure(settings, "flower")
    failures.begin(settings, "flower")
    _pass_variables()
    if not _is_loopback(host) and not any(map(os.environ.get, _LOGINS)):
        typer.echo(
            f"outhaul flower: any client that reaches {host} has access; set {FLOWER}BASIC_AUTH=user:password", err=True
        )
    # Flower recognizes a broker by the transport's name in its URL; outhaul's transport is read like a plain Redis.
    Connection.resolve_aliases[TRANSPORT] = "redis"
    _show_queue(settings)
    chosen = {
        "address": host,
        "port": port,
        "max-tasks": max_tasks,
        "purge-offline-workers": round(purge_offline_workers),
        "read-only": str(read_only).lower(),
        "tasks-columns": _COLUMNS,
        # By default Flower reads flowerconfig.py in the working directory, which is the app's.
        "conf": os.devnull,
    }
    # A later option overrides an earlier one.
    arguments = [*(f"--{name}={value}" for name, value in chosen.items()), *context.args]
    with failures.reporting_exit():
        try:
            make_app(settings).start(["flower", *arguments])
        except OSError as error:
            raise FatalError(
                f"Flower cannot listen on {host}:{port}: {error.strerror}",
                todo="Choose another --port",
                exit_code=Exit.SETTINGS,
            ) from None
    patience = threading.Timer(_STOP_S, os._exit, (Exit.FINE,))
    patience.daemon = True
    patience.start()


def _pass_variables() -> None:
    """Give Flower the variables OUTHAUL_FLOWER_*, and none of another Flower that has the same environment.

    Raises:
        FatalError: a login is set for Flower, but not for this one.
    """
    chosen = {
        name.removeprefix(PREFIX): value
        for name, value in os.environ.items()
        if name.startswith(FLOWER) and not is_of_service(name)
    }
    others = [name for name in os.environ if name.startswith(_FLOWERS)]
    if (logins := sorted(set(_LOGINS) & set(others))) and not chosen.keys() & set(_LOGINS):
        raise FatalError(
            f"{logins[0]} has no effect on `outhaul flower`",
            todo=f"Set {PREFIX}{logins[0]} for the login of this Flower; if it needs none, unset {logins[0]}",
            exit_code=Exit.SETTINGS,
        )
    for name in others:
        del os.environ[name]
    os.environ.update(chosen)


def _show_queue(settings: Settings) -> None:
    """Have Flower find the server of the queue before each poll; by itself it knows one fixed server."""
    url = settings.redis_url.get_secret_value()
    places = topology.places(url, settings.source)
    socket = redis_url.server_options(url) if places is None else {}
    if places is None and "path" not in socket:
        return
    from flower.app import Flower  # noqa: PLC0415 - not installed everywhere

    def now(_: object) -> str:
        if places is None:
            return f"redis+socket://:{quote(socket.get('password', ''), safe='')}@{socket['path']}"
        with suppress(RedisError):
            return redis_url.broker_url(url, next(places.find()).place)
        return redis_url.broker_url(url)

    Flower.broker_uri_with_password = property(now)


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
