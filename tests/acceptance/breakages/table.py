"""A pipeline between three proxies, and the table of what is done to it: which alerts fire, and which of them follow.

Each trouble is a function: it breaks the pipeline and returns how to mend it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from outhaul.deploy.demo.pipeline import Pipeline
from outhaul.deploy.local.fault_proxy import Proxy
from tests.acceptance.load import repeating
from tests.acceptance.metrics_pages import Pages, start
from tests.remote_clickhouse import proxied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import World

PROCESSES = ("worker", "reader", "exporter")

Mend = Callable[[], object]
Act = Callable[["Patient"], Mend]


@dataclass
class Patient:
    """A running pipeline whose processes reach the servers through proxies; `world` itself reaches them straight.

    What `undo` holds is done at the end of the test, whatever came of it.
    """

    world: World
    pages: Pages
    postgres: Proxy
    redis: Proxy
    clickhouse: Proxy
    undo: ExitStack

    def start(self, name: str) -> None:
        """Start a process again, its metrics where they were."""
        self.world.pipeline.start(name, OUTHAUL_METRICS_PORT=str(self.pages.ports[name]))

    def lay(self, point: str, action: str) -> None:
        """Lay an action at a fail point."""
        (self.world.logs / "points" / point).write_text(action)


@contextmanager
def between_proxies(world: World) -> Iterator[Patient]:
    """Run reader, worker and exporter of a world behind proxies, and let some events through."""
    dsn, *urls = (world.env[f"OUTHAUL_{name}"] for name in ("POSTGRES_DSN", "REDIS_URL", "CLICKHOUSE_URL"))
    targets = int(str(conninfo_to_dict(dsn)["port"])), urlsplit(urls[0]).port or 0
    points = world.logs / "points"
    points.mkdir()
    with ExitStack() as undo:
        clickhouse, through = proxied(urls[1])
        postgres, redis = (Proxy(target) for target in targets)
        for proxy in (postgres, redis, clickhouse):
            undo.callback(proxy.close)
        # A walsender, too, gives up sooner.
        by_proxy = {
            "OUTHAUL_POSTGRES_DSN": make_conninfo(dsn, port=postgres.port, options="-c wal_sender_timeout=2s"),
            "OUTHAUL_REDIS_URL": urls[0].replace(f":{redis.target}/", f":{redis.port}/"),
            "OUTHAUL_CLICKHOUSE_URL": through,
            "OUTHAUL_FAILPOINTS": str(points),
        }
        world.pipeline = Pipeline(world.env | by_proxy, world.logs)
        undo.callback(world.pipeline.kill)
        pages = start(world, *PROCESSES)
        world.insert(20)
        world.assert_once_each()
        yield Patient(world, pages, postgres, redis, clickhouse, undo)


@dataclass(frozen=True, slots=True)
class Trouble:
    """One way to break a pipeline.

    `fires` are the alerts that must fire, `mutes` those of them that Alertmanager suppresses because another one fires,
    `quiet` alerts about something similar that must not fire. `settings` are the pipeline's, `minute_s` and `sizes`
    those of `tests.alerting.in_a_hurry`.
    """

    act: Act
    fires: tuple[str, ...]
    mutes: tuple[str, ...] = ()
    quiet: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    minute_s: float = 1.0
    sizes: Mapping[str, str] = field(default_factory=dict)


TROUBLES: dict[str, Trouble] = {}


def trouble(*fires: str, **more: Any) -> Callable[[Act], Act]:
    """Put a function into the table, with the alerts that it makes fire, and what else a `Trouble` has."""

    def put(act: Act) -> Act:
        TROUBLES[act.__name__.replace("_", " ")] = Trouble(act, fires, **more)
        return act

    return put


def steadily(patient: Patient, statement: str, *, every_s: float) -> Mend:
    """Execute a statement in Postgres again and again; return how to stop."""
    running = patient.undo.enter_context(ExitStack())
    running.enter_context(repeating(patient.world.dsn, lambda conn: conn.execute(statement.encode()), every_s=every_s))
    return running.close
