"""Two engines behind one address -> two servers of ClickHouse that do not know of each other, and a load balancer.

Edge: HTTP. Each request goes to one of the two engines, in turn unless one is chosen. With `cluster`, the pair also
answers as two replicas in a cluster would. The engine has no Keeper and no native protocol, so this is a stand-in:

- tables are described as Replicated, and system.clusters and system.replicas describe the pair;
- `clusterAllReplicas` asks both engines: either each of them answers the whole query and the rows are put together, or,
  for a table of the database, one of them reads the other's rows through the table function `url`;
- nothing is replicated until a test calls `replicate`. The servers' ids are 1 and 2.
"""

from __future__ import annotations

import base64
import http.client
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.quoting import clickhouse_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLUSTER = "pair"

_ALL_OF_SYSTEM = re.compile(rf"clusterAllReplicas\('{CLUSTER}', system\.(\w+)\)")
_ALL_OF_TABLE = re.compile(rf"clusterAllReplicas\('{CLUSTER}', '(\w+)', '(\w+)'\)")
_TABLES = (
    "(SELECT t.* EXCEPT (engine), if(has([{alone}], t.name) OR NOT endsWith(t.engine, 'MergeTree'), t.engine, "
    "concat('Replicated', t.engine)) AS engine FROM system.tables AS t)"
)
_CLUSTERS = f"(SELECT '{CLUSTER}' AS cluster, 1 AS is_local FROM numbers(2))"
_REPLICAS = (
    "(SELECT t.database AS database, t.name AS `table`, concat('/', t.name) AS zookeeper_path, 'r{number}' AS "
    "replica_name, toUInt8({total}) AS total_replicas FROM system.tables AS t WHERE t.database = currentDatabase())"
)


@dataclass(frozen=True, slots=True)
class Node:
    """One engine."""

    number: int
    url: str

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 0

    @property
    def login(self) -> tuple[str, str]:
        parts = urlsplit(self.url)
        return parts.username or "", parts.password or ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node, or the pair, answers to one request."""

    status: int
    headers: dict[str, str]
    body: bytes


def refusal(code: int, text: str) -> Answer:
    """Return an error as ClickHouse sends it."""
    body = f"Code: {code}. DB::Exception: {text} (version 26.5.1.1)\n".encode()
    return Answer(500, {"X-ClickHouse-Exception-Code": str(code), "Content-Type": "text/plain; charset=UTF-8"}, body)


@dataclass
class Pair:
    """Two engines, of which each request reaches one.

    `node` is the only one that is reached, if it is set; `order` chooses one for each statement. `total` is the number
    of replicas that Keeper knows. Servers in `silent` do not answer the other one. The tables in `alone` are not
    replicated. `session_s` has the ages of their sessions in Keeper. `asked` has the statements, with their settings.
    """

    nodes: tuple[Node, Node]
    cluster: bool = False
    node: int | None = None
    total: int = 2
    silent: set[int] = field(default_factory=set)
    alone: set[str] = field(default_factory=set)
    may_ask_all: bool = True
    session_s: list[int] = field(default_factory=lambda: [3600, 3600])
    asked: list[str] = field(default_factory=list)
    order: Callable[[str], int] | None = None
    port: int = 0
    _turns: Iterator[int] = field(default_factory=lambda: cycle([0, 1]))

    def client(self, number: int) -> ClickHouse:
        """Return a client of one engine alone."""
        return ClickHouse(self.nodes[number - 1].url, timeout_s=30)

    def url(self, database: str) -> str:
        """Return the address of both."""
        return f"http://anyone:any@127.0.0.1:{self.port}/{database}"

    def replicate(self, table: str, *, to: int, key: str) -> None:
        """Give one server the rows of the other that it lacks, as Keeper would have told it to fetch them."""
        source = self._rows_of(3 - to, urlsplit(self.nodes[0].url).path.strip("/"), table)
        with self.client(to) as clickhouse:
            clickhouse.command(
                f"INSERT INTO {table} SELECT * FROM {source} WHERE ({key}) NOT IN (SELECT {key} FROM {table})"
            )

    def answer(self, target: str, body: bytes) -> Answer:
        """Send a request to the node whose turn it is, or to both."""
        number = (next(self._turns) if self.node is None else self.node - 1) + 1
        parts = urlsplit(target)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        text = next((value for name, value in pairs if name == "query"), body.decode(errors="replace"))
        if self.order is not None:
            number = self.order(text)
        self.asked.append(f"{unquote(parts.query)}\n{text}")
        if not self.cluster:
            return self._send(number, target, body)
        is_of_all = "clusterAllReplicas" in text
        if is_of_all and not self.may_ask_all:
            return refusal(497, "anyone: Not enough privileges. To execute this query, it's necessary to have REMOTE")
        if is_of_all and self.silent:
            return refusal(279, "All connection tries failed. (ALL_CONNECTION_TRIES_FAILED)")
        numbers = [1, 2] if _ALL_OF_SYSTEM.search(text) or ("serverUUID()" in text and is_of_all) else [number]
        answers = [self._send_rewritten(one, parts.path, pairs, body) for one in numbers]
        failed = next((one for one in answers if one.status != 200), None)
        return failed or Answer(200, answers[0].headers, b"".join(one.body for one in answers))

    def _send_rewritten(self, number: int, path: str, pairs: list[tuple[str, str]], body: bytes) -> Answer:
        sent = [(name, self._rewritten(value, number) if name == "query" else value) for name, value in pairs]
        if "query" not in dict(pairs):
            body = self._rewritten(body.decode("utf-8", "surrogateescape"), number).encode("utf-8", "surrogateescape")
        return self._send(number, f"{path}?{urlencode(sent)}", body)

    def _rewritten(self, text: str, number: int) -> str:
        """Return the statement for one engine."""
        together = "serverUUID()" not in text

        def table(found: re.Match[str]) -> str:
            own = f"`{found[1]}`.`{found[2]}`"
            others = self._rows_of(3 - number, found[1], found[2])
            return f"(SELECT * FROM {own} UNION ALL SELECT * FROM {others})" if together else own

        text = _ALL_OF_TABLE.sub(table, _ALL_OF_SYSTEM.sub(r"system.\1", text))
        alone = ", ".join(f"'{name}'" for name in self.alone)
        text = re.sub(r"\bFROM system\.tables\b", "FROM " + _TABLES.format(alone=alone), text)
        text = re.sub(r"\bFROM system\.clusters\b", "FROM " + _CLUSTERS, text)
        text = re.sub(r"\bFROM system\.replicas\b", "FROM " + _REPLICAS.format(number=number, total=self.total), text)
        session = f"(SELECT toUInt64({self.session_s[number - 1]}) AS session_uptime_elapsed_seconds)"
        text = re.sub(r"\bFROM system\.zookeeper_connection\b", f"FROM {session}", text)
        return text.replace("serverUUID()", str(number))

    def _rows_of(self, number: int, database: str, table: str) -> str:
        node = self.nodes[number - 1]
        host, port = node.address
        user, password = node.login
        with self.client(number) as clickhouse:
            columns = clickhouse.rows(
                "SELECT name, type FROM system.columns WHERE database = {database:String} AND table = {table:String}",
                parameters={"database": database, "table": table},
            )
        names = ", ".join(f"`{name}`" for name, _ in columns)
        # Named, since an empty answer of the engine has no types.
        structure = clickhouse_literal(", ".join(f"`{name}` {kind}" for name, kind in columns))
        asked = urlencode(
            {"user": user, "password": password, "query": f"SELECT {names} FROM `{database}`.`{table}` FORMAT Native"}
        )
        return f"url('http://{host}:{port}/?{asked}', 'Native', {structure})"

    def _send(self, number: int, target: str, body: bytes) -> Answer:
        node = self.nodes[number - 1]
        link = http.client.HTTPConnection(*node.address, timeout=60)
        try:
            basic = base64.b64encode(":".join(node.login).encode()).decode()
            link.request("POST", target, body, {"Authorization": f"Basic {basic}"})
            reply = link.getresponse()
            headers = {name: value for name, value in reply.getheaders() if name.startswith(("X-", "Content-Type"))}
            return Answer(reply.status, headers, reply.read())
        finally:
            link.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    pair: Pair

    def do_POST(self) -> None:
        """Answer a statement."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.pair.answer(self.path, body)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *_: object) -> None:
        """Write no access log."""


@contextmanager
def pair_of(first: str, second: str, database: str) -> Iterator[Pair]:
    """Open a door to two engines; the second one gets a database of the same name for the time."""
    with ClickHouse(second, timeout_s=30) as clickhouse:
        clickhouse.command(f"CREATE DATABASE {database}")
        pair = Pair((Node(1, first), Node(2, f"{second.rpartition('/')[0]}/{quote(database)}")))
        door = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"pair": pair}))
        door.daemon_threads = True
        pair.port = door.server_address[1]
        threading.Thread(target=door.serve_forever, daemon=True).start()
        try:
            yield pair
        finally:
            door.shutdown()
            door.server_close()
            clickhouse.command(f"DROP DATABASE {database}")
