"""What reaches Sentry from a real pipeline: errors and joined traces, and neither secret nor content."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
import redis
from psycopg.conninfo import make_conninfo

from outhaul.deploy.demo.pipeline import Pipeline
from tests import roles
from tests.acceptance.metrics_pages import free_port
from tests.acceptance.sentry_listener import Listener
from tests.conftest import World, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PASSWORD = "planted-pass-word"
E_MAIL = "ada.lovelace@example.org"
KEY = "planted-key-0123456789abcdef0123456789abcdef"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def listener() -> Iterator[Listener]:
    one = Listener()
    yield one
    one.close()


def test_a_batch_is_one_trace_and_no_secret_nor_content_is_sent(
    make_world: Callable[..., World], listener: Listener
) -> None:
    world = make_world(message_key=KEY)
    world.conn.execute("ALTER TABLE outbox ADD COLUMN traceparent text")
    # Nobody is asked for a password there, so any will do.
    (world.logs / "dsn").write_text(make_conninfo(roles.as_reader(world.dsn), password=PASSWORD) + "\n")
    env = world.env | {
        "OUTHAUL_SENTRY_DSN": listener.dsn,
        "OUTHAUL_SENTRY_TRACES_RATE": "1",
        "OUTHAUL_POSTGRES_DSN_FILE": str(world.logs / "dsn"),
        "OUTHAUL_REDIS_URL": world.env["OUTHAUL_REDIS_URL"].replace("//", f"//sentry:{PASSWORD}@"),
        "OUTHAUL_LOG_LEVEL": "DEBUG",
    }
    del env["OUTHAUL_POSTGRES_DSN"]
    world.pipeline = Pipeline(env, world.logs)
    admin = redis.Redis.from_url(world.env["OUTHAUL_REDIS_URL"])
    login: dict[str, Any] = {"enabled": True, "passwords": [f"+{PASSWORD}"]}
    admin.acl_setuser("sentry", categories=["+@all"], keys=["*"], channels=["*"], **login)
    ports = {"reader": free_port(), "worker": free_port()}
    public: list[bytes] = []
    try:
        world.pipeline.start("reader", OUTHAUL_METRICS_PORT=str(ports["reader"]))
        insert(world, "fine")
        until(lambda: admin.llen(world.settings.queue_key), what="the message waits")
        public += map(as_bytes, admin.lrange(world.settings.queue_key, 0, -1))
        world.pipeline.start("worker", OUTHAUL_METRICS_PORT=str(ports["worker"]))
        world.assert_once_each()
        public += [page(port) for port in ports.values()] + command_lines(world)
        check_trace(listener)

        # ClickHouse refuses a row and quotes it; then the table is not what it was, which is fatal.
        check = f"event_type NOT IN ('poison-{E_MAIL}', '{PASSWORD}')"
        world.clickhouse.command(f"ALTER TABLE event_log ADD CONSTRAINT kind CHECK {check}")
        insert(world, f"poison-{E_MAIL}")
        until(lambda: any(tags["level"] == "warning" for tags in listener.tags()), what="the refused row is told")
        refused = next(tags for tags in listener.tags() if tags["level"] == "warning")
        assert refused["outhaul.process"] == "worker"
        assert refused["outhaul.source"] == world.settings.source
        assert {f"outhaul.{name}" for name in ("epoch", "batch", "token", "first", "last", "code")} <= refused.keys()
        world.clickhouse.command("RENAME TABLE event_log TO event_log_away")
        insert(world, f"fatal-{E_MAIL}")
        until(lambda: {one["outhaul.process"] for one in fatal(listener)} == {"reader", "worker"}, what="both tell")
    finally:
        world.pipeline.kill()
        admin.acl_deluser("sentry")
        admin.close()
    public += [world.pipeline.log(name).encode() for name in ("reader", "worker")]
    for seen in (*listener.sent, *public):
        for secret in (PASSWORD, KEY):
            assert secret.encode() not in seen
    for envelope in listener.sent:
        assert E_MAIL.encode() not in envelope


def as_bytes(item: bytes | str) -> bytes:
    return item if isinstance(item, bytes) else item.encode()


def page(port: int) -> bytes:
    """Return the metrics of a process; it listens on the loopback alone, where nobody says otherwise."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        found: bytes = answer.read()
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.2", port), 2):
        pass
    return found


def command_lines(world: World) -> list[bytes]:
    """Return what `ps` shows of the pipeline's processes and their children."""
    sessions = {world.pipeline.pid("reader"), world.pipeline.pid("worker")}
    found = [path.parent for path in Path("/proc").glob("[0-9]*/cmdline")]
    ours = [one for one in found if one.exists() and os.getsid(int(one.name)) in sessions]
    assert len(ours) >= 4
    return [(one / "cmdline").read_bytes() for one in ours]


def insert(world: World, kind: str) -> None:
    world.conn.execute(
        "INSERT INTO outbox (event_type, environment, event_context, traceparent) "
        "VALUES (%s, 'test', jsonb_build_object('email', %s::text), %s)",
        [kind, E_MAIL, f"00-{TRACE}-{SPAN}-01"],
    )


def fatal(listener: Listener) -> list[dict[str, str]]:
    return [tags for tags in listener.tags() if tags["level"] == "error"]


def check_trace(listener: Listener) -> None:
    """Dispatch, task and insert are of one trace; the app's own goes on, and each names the other."""

    def found() -> dict[str, dict[str, object]]:
        by_op = {}
        for one in listener.items("transaction"):
            trace = one["contexts"]["trace"]
            by_op["producer" if trace["trace_id"] == TRACE else trace["op"]] = one
        return by_op

    until(lambda: {"queue.publish", "producer"} <= found().keys() and len(found()) > 2, what="all transactions")
    by_op = found()
    told, sent = by_op.pop("producer"), by_op.pop("queue.publish")
    ((_, task),) = by_op.items()
    batch = sent["contexts"]["trace"]["trace_id"]  # type: ignore[index]
    assert task["contexts"]["trace"]["trace_id"] == batch  # type: ignore[index]
    assert "db.insert" in {span["op"] for span in task["spans"]}  # type: ignore[attr-defined]
    assert task["contexts"]["trace"]["data"]["outhaul.producer_trace_ids"] == [TRACE]  # type: ignore[index]
    assert told["contexts"]["trace"]["parent_span_id"] == SPAN  # type: ignore[index]
    assert told["contexts"]["trace"]["data"]["outhaul.batch_trace_id"] == batch  # type: ignore[index]


@pytest.mark.thorough
def test_attempts_are_of_the_batchs_trace_and_a_short_outage_is_no_event(world: World, listener: Listener) -> None:
    for name in ("worker", "reader"):
        world.pipeline.start(name, OUTHAUL_SENTRY_DSN=listener.dsn, OUTHAUL_SENTRY_TRACES_RATE="1")
    world.insert(3)
    world.assert_once_each()
    world.stack.kill("clickhouse")
    world.insert(3)

    def attempts() -> int:
        """Count the runs of the task in the trace that has most of them."""
        traces = [one["contexts"]["trace"] for one in listener.items("transaction")]
        runs = [trace["trace_id"] for trace in traces if trace["op"] != "queue.publish"]
        return max(map(runs.count, runs), default=0)

    until(lambda: attempts() >= 2, what="two attempts at one batch are traced")
    world.stack.up()
    world.assert_once_each()
    until(lambda: attempts() >= 3, what="the one that stored it is of the same trace")
    assert listener.tags() == []
