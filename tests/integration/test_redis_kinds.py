"""Sentinels and a cluster are found, judged and refused for what they are; each is a real one here."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import redis
from redis.crc import key_slot

from outhaul.cdc_reader.operate.doctor import redis_checks as doctor
from outhaul.cdc_reader.operate.doctor.finding import State
from outhaul.cdc_reader.operate.exporter.redis_metrics import RedisMetrics
from outhaul.deploy.local.fault_proxy import Proxy
from outhaul.sink.app import make_app
from outhaul.sink.errors import Exit, FatalError, PipelineError, TransientError
from outhaul.sink.redis import topology
from outhaul.sink.redis.connection import connection_options
from outhaul.sink.redis.discovery import ElsewhereError, PlaceAnswer, Search
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.redis_keys import celery_prefix
from outhaul.sink.redis_url import RedisAddress, RedisKind
from outhaul.sink.settings import load
from outhaul.sink.task_names import WRITE_BATCH
from tests.acceptance.commands import outhaul
from tests.acceptance.metrics_pages import free_port
from tests.conftest import until
from tests.faults.redis_servers import HOST, MASTER, PASSWORD, SENTINELS_PASSWORD, Cluster, Sentinels, Server
from tests.tls import Door, Papers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from outhaul.cdc_reader.operate.doctor.finding import Finding
    from tests.conftest import World


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    made = Sentinels(tmp_path_factory.mktemp("sentinels"))
    yield made
    made.end()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.end()


def of_doctor(url: str) -> dict[str, Finding]:
    return {one.check: one for one in doctor.judge(doctor.ask(load(redis_url=url)))}


def complaint(url: str) -> PipelineError:
    payloads = Payloads(url, "outhaul")
    begun_at = time.monotonic()
    with pytest.raises(PipelineError) as caught:
        payloads.text("outhaul:{outhaul}:x")
    assert time.monotonic() - begun_at < 30
    assert PASSWORD not in str(caught.value)
    assert SENTINELS_PASSWORD not in str(caught.value)
    return caught.value


def test_the_doctor_prints_what_the_sentinels_answer(sentinels: Sentinels) -> None:
    found = of_doctor(sentinels.url(database=2))
    primary = sentinels.primary()
    assert (found["place"].state, found["replicas"].state) == (State.PASS, State.PASS)
    assert found["place"].found == f"the primary of {MASTER} is {primary}, according to 3 of 3"
    dead = f"{HOST}:{free_port()}"
    found = of_doctor(sentinels.url().replace(f"@{sentinels.sentinels[0]}", f"@{dead}"))
    assert found["place"].state is State.WARN
    assert found["place"].found.endswith(f"according to 2 of 3; {dead}: no answer (ConnectionError)")
    only = f",{','.join(map(str, sentinels.sentinels[1:]))}"
    assert of_doctor(sentinels.url().replace(only, ""))["place"].found.endswith(
        "and it is the only one in OUTHAUL_REDIS_URL"
    )


def test_the_doctor_says_which_node_has_the_slot(cluster: Cluster) -> None:
    found = of_doctor(cluster.url())
    slot = key_slot(b"{outhaul}")
    assert found["place"].found == f"the node with slot {slot} is {cluster.owner('outhaul')}, according to 3 of 3"
    assert (found["place"].state, found["replicas"].state) == (State.PASS, State.WARN)
    assert found["replicas"].found == "none: if the node fails, events wait until it runs again"


def test_the_doctor_knows_a_node_that_the_address_takes_for_a_server(cluster: Cluster) -> None:
    # One that has the slot answers as any server does.
    found = of_doctor(f"redis://:{PASSWORD}@{cluster.owner('outhaul')}/0")
    assert found["role"].state is State.FAIL
    assert "redis+cluster://" in found["role"].fix


def test_what_sentinels_refuse_is_reported_in_one_line(sentinels: Sentinels, cluster: Cluster) -> None:
    unknown = complaint(sentinels.url(master="other"))
    assert unknown.exit_code is Exit.SETTINGS
    assert "no server names the primary of other: " in unknown.message
    assert unknown.message.endswith("it knows no primary of this name")
    login = complaint(sentinels.url().replace(SENTINELS_PASSWORD, "wrong"))
    assert isinstance(login, FatalError)
    assert login.exit_code is Exit.REDIS_LOGIN
    login = complaint(sentinels.url().replace(PASSWORD, "wrong"))
    assert login.exit_code is Exit.REDIS_LOGIN
    # The servers themselves in the Sentinels' place, and the other way round.
    servers = ",".join(map(str, sentinels.servers))
    assert complaint(f"redis+sentinel://:x@{servers}?master=m&sentinel_password={PASSWORD}").exit_code is Exit.SETTINGS
    assert complaint(f"redis+cluster://:{PASSWORD}@{servers}").exit_code is Exit.SETTINGS
    nodes = ",".join(map(str, cluster.nodes))
    assert complaint(f"redis+sentinel://:x@{nodes}?master=m&sentinel_password={PASSWORD}").exit_code is Exit.SETTINGS


def test_sentinels_that_do_not_answer_are_waited_for_for_seconds_and_called_transient(sentinels: Sentinels) -> None:
    nobody = complaint("redis+sentinel://one.invalid,two.invalid/0?master=m")
    assert isinstance(nobody, TransientError)
    # One that takes the question and says nothing is passed over.
    with silent(sentinels.sentinels[0]) as address:
        first = sentinels.url().replace(f"@{sentinels.sentinels[0]}", f"@{address}")
        payloads = Payloads(first, "outhaul")
        begun_at = time.monotonic()
        payloads.set("outhaul:{outhaul}:x", "1")
        assert time.monotonic() - begun_at < 20
        payloads.close()


@contextmanager
def silent(server: Server) -> Iterator[str]:
    proxy = Proxy(server.port)
    proxy.hold()
    try:
        yield f"{HOST}:{proxy.port}"
    finally:
        proxy.close()


def test_a_connection_to_a_server_that_has_become_a_replica_ends(sentinels: Sentinels) -> None:
    """A server that is no longer the primary says so when it is greeted, and when it is written to."""
    places = topology.Places(Search(RedisAddress(RedisKind.SENTINEL, (), 0, None, PASSWORD, MASTER), "outhaul", {}))
    replica = next(one for one in sentinels.servers if one is not sentinels.primary())
    lie = PlaceAnswer((HOST, 1), (HOST, replica.port))
    places.find = lambda: iter([lie])  # type: ignore[method-assign]
    pool = redis.ConnectionPool(**connection_options(places))
    with pytest.raises(ElsewhereError, match="it reports the role replica"):
        redis.Redis.from_pool(pool).get("x")


def test_all_that_celery_asks_of_a_cluster_is_in_the_source_s_slot(cluster: Cluster) -> None:
    settings = load(redis_url=cluster.url(), source="here")
    payloads = Payloads(cluster.url(), "here")
    with make_app(settings) as app, app.connection_for_write() as connection:
        channel = connection.default_channel
        assert not channel._has_queue(settings.queue)
        for _ in range(3):
            app.send_task(WRITE_BATCH, args=("x",), queue=settings.queue, retry=False)
        assert payloads.length(settings.queue_key) == 3 == channel._size(settings.queue)
        assert channel._has_queue(settings.queue)
        first, second = (channel.basic_get(settings.queue) for _ in range(2))
        assert only_keys(cluster, "here") >= {b"unacked", b"unacked_index", settings.queue.encode()}
        channel.basic_reject(first.delivery_tag, requeue=True)
        channel.basic_ack(second.delivery_tag)
        # What a worker that died has left comes back by a lock, a script and a transaction.
        third = channel.basic_get(settings.queue)
        channel.qos.channel.visibility_timeout = -1
        channel.qos.__dict__.pop("visibility_timeout", None)
        channel.qos.restore_visible()
        channel.qos._delivered.pop(third.delivery_tag, None)
        assert payloads.length(settings.queue_key) == 2
        assert app.control.ping(timeout=0.1) == []
        channel.sweep_bindings()
        assert only_keys(cluster, "here")
        assert app.control.purge() == 2
        channel.queue_delete(settings.queue)
    payloads.close()


def test_a_connection_that_breaks_with_a_message_in_hand_is_closed_while_redis_is_away(tmp_path: Path) -> None:
    """As Celery does it; an error of another kind than a connection's would end its worker."""
    server = Server(tmp_path).start()
    settings = load(redis_url=f"redis://:{PASSWORD}@{server}/0")
    with make_app(settings) as app, app.connection_for_write() as connection:
        app.send_task(WRITE_BATCH, args=("x",), queue=settings.queue, retry=False)
        taken: list[object] = []
        connection.default_channel.basic_consume(settings.queue, False, taken.append, "consumer")
        # A channel of its own has remote control.
        connection.channel().basic_consume("outhaul.control", False, taken.append, "control")
        with suppress(TimeoutError):
            while True:
                connection.drain_events(timeout=0.3)
        # One is in hand, and the next is asked for.
        assert len(taken) == 1
        server.kill()
        connection.collect()
        connection.close()


def only_keys(cluster: Cluster, source: str) -> set[bytes]:
    """Return the names of Celery's keys, without their prefix; none has a name that is not some source's."""
    prefix = celery_prefix(source).encode()
    keys = [key for node in cluster.nodes for key in node.ask("KEYS", "*")]
    assert all(key.startswith(b"outhaul:{") for key in keys), keys
    return {key.removeprefix(prefix) for key in keys if key.startswith(prefix)}


def test_the_exporter_finds_both_kinds(sentinels: Sentinels, cluster: Cluster) -> None:
    for url in (sentinels.url(), cluster.url()):
        names = {metric.name: metric for metric in RedisMetrics(load(redis_url=url)).collect()}
        assert names["outhaul_queue_messages"].samples[0].value == 0


def test_both_are_asked_over_tls_and_the_keys_are_there_by_tls_too(sentinels: Sentinels, tmp_path: Path) -> None:
    papers = Papers(tmp_path)
    conf = "cluster-enabled yes\n"
    node = Server(tmp_path, conf=conf)
    with (
        Door((HOST, node.port), papers.server).open() as door,
        Door((HOST, sentinels.sentinels[0].port), papers.server).open() as other,
    ):
        # What a node with TLS does: it tells clients the port of that.
        node.conf += f"cluster-port {free_port()}\ncluster-announce-port {door.port}\n"
        try:
            node.start().ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            until(lambda: b"cluster_state:ok" in node.ask("CLUSTER", "INFO"), what="it is up")
            url = f"rediss+cluster://:{PASSWORD}@{HOST}:{door.port}?ssl_ca_certs={papers.ca}"
            assert of_doctor(url)["place"].found.endswith(
                f" is {HOST}:{door.port}, according to 1 of 1, and it is the only one in OUTHAUL_REDIS_URL"
            )
            settings = load(redis_url=url)
            with make_app(settings) as app:
                app.send_task(WRITE_BATCH, args=("x",), queue=settings.queue, retry=False)
            assert node.ask("LLEN", settings.queue_key) == 1
        finally:
            node.kill()
        refused = complaint(url.replace(str(papers.ca), str(papers.wrong_ca)))
        assert "certificate is refused" in str(refused)
        options = f"master={MASTER}&sentinel_password={SENTINELS_PASSWORD}&ssl_ca_certs="
        sentinel = f"rediss+sentinel://:x@{HOST}:{other.port}?{options}"
        (said,) = places_of(f"{sentinel}{papers.ca}").ask_all()
        assert said.place == (HOST, sentinels.primary().port)
        assert "certificate is refused" in str(complaint(f"{sentinel}{papers.wrong_ca}"))


def places_of(url: str) -> topology.Places:
    found = topology.places(url, "outhaul")
    assert found is not None
    return found


@pytest.mark.thorough
def test_a_sentinel_s_own_address_is_refused_at_the_start(world: World, sentinels: Sentinels) -> None:
    url = f"redis://:{SENTINELS_PASSWORD}@{sentinels.sentinels[0]}/0"
    said = outhaul(world, "reader", code=Exit.SETTINGS, OUTHAUL_REDIS_URL=url)
    assert "leads to a server that stores no keys, perhaps a Sentinel" in said
    assert "If it is a Sentinel, write redis+sentinel://" in said


@pytest.mark.thorough
def test_a_node_of_a_cluster_is_refused_at_the_start(world: World, cluster: Cluster) -> None:
    for node in cluster.nodes:
        url = f"redis://:{PASSWORD}@{node}/0"
        said = outhaul(world, "reader", code=Exit.SETTINGS, OUTHAUL_REDIS_URL=url)
        assert "leads to a node of a cluster, but does not name a cluster" in said
        assert "Write redis+cluster://" in said


def test_a_connection_that_waits_in_a_pool_goes_where_another_has_found_the_keys(cluster: Cluster) -> None:
    """Only the first that meets the old place fails; the broker's would cost the reader another pause."""
    settings = load(redis_url=cluster.url(), source="there")
    payloads = Payloads(cluster.url(), "there")
    with make_app(settings) as app:
        app.send_task(WRITE_BATCH, args=("x",), queue=settings.queue, retry=False)
        payloads.set("outhaul:{there}:x", "1")
        cluster.move("there")
        with pytest.raises(TransientError, match="no longer the node with slot"):
            payloads.set("outhaul:{there}:x", "2")
        payloads.set("outhaul:{there}:x", "2")
        app.send_task(WRITE_BATCH, args=("x",), queue=settings.queue, retry=False)
    assert payloads.length(settings.queue_key) == 2
    payloads.close()
