"""Valkeys of a test's own: a primary and a replica that Sentinels watch, or the nodes of a cluster."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import redis
from redis.crc import key_slot

from outhaul.deploy.local.valkey import Valkey
from outhaul.sink.redis_keys import celery_prefix
from tests.acceptance.metrics_pages import free_port
from tests.conftest import until

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

HOST = "127.0.0.1"
MASTER = "mymaster"
PASSWORD, SENTINELS_PASSWORD = "ein-langes-Wort", "ein-anderes-Wort"
# How soon a silent server counts as gone, in milliseconds, and what is usual.
SOON_MS, USUAL_MS = 500, 5000

# As docs/security.md has them: what outhaul's user may do at the servers (Flower, too), and at a Sentinel.
USER = "outhaul"
ACL = "~outhaul:* &* +@all -@admin -@dangerous +info"
SENTINEL_ACL = "+sentinel|get-master-addr-by-name"


@dataclass
class Server:
    """One process on one port."""

    folder: Path
    arguments: tuple[str, ...] = ()
    conf: str = ""
    password: str = PASSWORD
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    # Another program than the embedded Valkey.
    program: str = ""

    def start(self) -> Server:
        """Start it; what its configuration file holds by now is kept."""
        home = self.folder / str(self.port)
        home.mkdir(exist_ok=True)
        path = home / "conf"
        if not path.exists():
            path.write_text(f"port {self.port}\nbind {HOST}\ndir {home}\nrequirepass {self.password}\n{self.conf}")
        program = self.program or Valkey(home).prepare(self.port).argv[0]
        with (home / "log").open("ab") as log:
            self.process = subprocess.Popen([program, str(path), *self.arguments], stdout=log, stderr=log)
        until(self.answers, what="a Valkey answers")
        return self

    def answers(self) -> bool:
        with suppress(redis.ConnectionError), self.client() as client:
            return bool(client.ping())
        return False

    def admit(self, rights: str) -> Server:
        """Make outhaul's user; its password is the server's."""
        self.ask("ACL", "SETUSER", USER, "on", f">{self.password}", *rights.split())
        return self

    def client(self) -> redis.Redis:
        return redis.Redis(host=HOST, port=self.port, password=self.password, socket_timeout=10)

    def ask(self, *words: object) -> Any:
        """Send a command that redis-py need not know; return what it answers, undecoded."""
        make: Any = redis.Connection
        connection = make(host=HOST, port=self.port, password=self.password, protocol=2)
        connection.send_command(*words)
        try:
            return connection.read_response()
        finally:
            connection.disconnect()

    def says(self, fact: str) -> bool:
        """Return whether `INFO replication` has this fact; a server that changes its role ends connections."""
        with suppress(redis.ConnectionError):
            return fact.encode() in self.ask("INFO", "replication")
        return False

    def pause(self) -> None:
        """Let it hang."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def __str__(self) -> str:
        return f"{HOST}:{self.port}"


def _names(servers: Iterable[Server]) -> str:
    return ",".join(map(str, servers))


class Sentinels:
    """One primary, one replica, three Sentinels, each with a password."""

    def __init__(self, folder: Path, down_after_ms: int = SOON_MS) -> None:
        # Where the old primary comes back it follows, so each has what the other lets in.
        common = f'save ""\nrepl-diskless-sync-delay 0\nmasterauth {PASSWORD}\n'
        first = Server(folder, conf=common).start().admit(ACL)
        second = Server(folder, conf=f"{common}replicaof {HOST} {first.port}\n").start().admit(ACL)
        self.servers = (first, second)
        watch = (
            f"sentinel monitor {MASTER} {HOST} {first.port} 2\nsentinel auth-pass {MASTER} {PASSWORD}\n"
            f"sentinel sentinel-pass {SENTINELS_PASSWORD}\nsentinel down-after-milliseconds {MASTER} {down_after_ms}\n"
            f"sentinel failover-timeout {MASTER} 3000\n"
        )
        sentinel = {"arguments": ("--sentinel",), "conf": watch, "password": SENTINELS_PASSWORD}
        self.sentinels = [
            Server(folder, **sentinel).start().admit(SENTINEL_ACL)  # type: ignore[arg-type]
            for _ in range(3)
        ]
        until(self._know_each_other, what="the Sentinels know each other and the replica")

    def _know_each_other(self) -> bool:
        for one in self.sentinels:
            said = self._facts(one)
            if (said[b"num-slaves"], said[b"num-other-sentinels"], said[b"flags"]) != (b"1", b"2", b"master"):
                return False
        return self.servers[1].says("master_link_status:up")

    @staticmethod
    def _facts(sentinel: Server) -> dict[bytes, bytes]:
        words = sentinel.ask("SENTINEL", "MASTER", MASTER)
        return dict(zip(words[::2], words[1::2], strict=True))

    def url(self, database: int = 0, master: str = MASTER) -> str:
        options = f"master={master}&sentinel_user={USER}&sentinel_password={SENTINELS_PASSWORD}"
        return f"redis+sentinel://{USER}:{PASSWORD}@{_names(self.sentinels)}/{database}?{options}"

    def primary(self) -> Server:
        """Return the server that the Sentinels name."""
        _, port = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        return next(one for one in self.servers if one.port == int(port))

    def fail_over(self) -> None:
        """Have another server promoted, by hand; the old one becomes a replica."""
        old = self.primary()
        until(lambda: _done(self.sentinels[0], "SENTINEL", "FAILOVER", MASTER), what="a failover has begun")
        until(lambda: self.primary() is not old, what="another is the primary")
        until(lambda: old.says("role:slave"), what="the old primary is a replica")

    def end(self) -> None:
        for one in (*self.sentinels, *self.servers):
            one.kill()


class Cluster:
    """Three nodes that share the slots, and, where asked for, a replica of each."""

    def __init__(self, folder: Path, node_timeout_ms: int = SOON_MS, *, replicas: bool = False) -> None:
        conf = (
            f'save ""\nrepl-diskless-sync-delay 0\nmasterauth {PASSWORD}\ncluster-enabled yes\n'
            f"cluster-node-timeout {node_timeout_ms}\ncluster-replica-validity-factor 0\n"
        )
        count = 6 if replicas else 3
        self.nodes = [
            Server(folder, conf=f"{conf}cluster-port {free_port()}\n").start().admit(ACL) for _ in range(count)
        ]
        self.ids = [one.ask("CLUSTER", "MYID").decode() for one in self.nodes]
        for number, one in enumerate(self.nodes[:3]):
            one.ask("CLUSTER", "ADDSLOTSRANGE", 5461 * number, 16383 if number == 2 else 5461 * number + 5460)
            one.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for one in self.nodes[1:]:
            bus = one.client().config_get("cluster-port")
            self.nodes[0].ask("CLUSTER", "MEET", HOST, one.port, next(iter(bus.values())))
        until(lambda: all(one.ask("CLUSTER", "INFO").count(b"known_nodes:%d" % count) for one in self.nodes))
        for one, of in zip(self.nodes[3:], self.ids, strict=False):
            until(lambda one=one, of=of: _done(one, "CLUSTER", "REPLICATE", of))  # type: ignore[misc]
        until(lambda: all(b"cluster_state:ok" in one.ask("CLUSTER", "INFO") for one in self.nodes), what="it is up")
        for one in self.nodes[3:]:
            until(lambda one=one: one.says("master_link_status:up"))  # type: ignore[misc]

    def url(self) -> str:
        return f"redis+cluster://{USER}:{PASSWORD}@{_names(self.nodes)}"

    def owner(self, source: str) -> Server:
        """Return the node that has the source's slot, as the first node that lives sees it."""
        slot = key_slot(celery_prefix(source).encode())
        for one in self.nodes:
            with suppress(redis.ConnectionError):
                for first, last, node, *_ in one.ask("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return next(found for found in self.nodes if found.port == node[1])
        raise AssertionError(f"no node has slot {slot}")

    def move(self, source: str, *, hold_s: float = 0.0) -> None:
        """Move the source's slot to another node, key by key, as `valkey-cli --cluster reshard` does.

        Args:
            source: whose slot.
            hold_s: how long the move rests when it is half done, in seconds.
        """
        slot = key_slot(celery_prefix(source).encode())
        old = self.owner(source)
        new = next(one for one in self.nodes[:3] if one is not old)
        old_id, new_id = (self.ids[self.nodes.index(one)] for one in (old, new))
        new.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", old_id)
        old.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", new_id)
        time.sleep(hold_s)
        while keys := old.ask("CLUSTER", "GETKEYSINSLOT", slot, 10):
            old.ask("MIGRATE", HOST, new.port, "", 0, 5000, "AUTH", PASSWORD, "KEYS", *keys)
        for one in (new, old, *self.nodes[:3]):
            one.ask("CLUSTER", "SETSLOT", slot, "NODE", new_id)

    def fail_over(self, source: str) -> None:
        """Have the replica of the source's node take its place, by hand."""
        old = self.owner(source)
        self.nodes[self.nodes.index(old) + 3].ask("CLUSTER", "FAILOVER")
        until(lambda: self.owner(source) is not old, what="the replica has taken over")

    def end(self) -> None:
        for one in self.nodes:
            one.kill()


def _done(server: Server, *words: object) -> bool:
    with suppress(redis.ResponseError):
        return bool(server.ask(*words) == b"OK")
    return False
