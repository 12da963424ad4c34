"""The HTTP front of the embedded ClickHouse engine, through clickhouse-connect, curl and bare sockets."""

from __future__ import annotations

import base64
import gzip
import http.client
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import clickhouse_connect
import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
import pytest
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, StreamFailureError

from outhaul.deploy.local.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clickhouse_connect.driver.client import Client

NAMES = "qwertyuiop"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("front"))
    stack.up(["clickhouse"])
    yield stack
    stack.down()


@pytest.fixture
def url(stack: Stack) -> str:
    stack.up(["clickhouse"])
    return stack.env()["OUTHAUL_CLICKHOUSE_URL"]


def connect(url: str, **options: Any) -> Client:
    parts = urlsplit(url)
    given: dict[str, Any] = {
        "host": parts.hostname,
        "port": parts.port,
        "username": parts.username,
        "password": parts.password,
        "database": parts.path.strip("/"),
        "autogenerate_session_id": False,
    }
    return clickhouse_connect.get_client(**{**given, **options})


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    client = connect(url)
    yield client
    client.close()


@pytest.fixture
def table(client: Client) -> Iterator[str]:
    name = "t"
    client.command(f"DROP TABLE IF EXISTS {name} SYNC")
    client.command(
        f"CREATE TABLE {name} (id Int64, month Date DEFAULT '2024-01-01', text String) ENGINE = MergeTree "
        "PARTITION BY toYYYYMM(month) ORDER BY id SETTINGS non_replicated_deduplication_window = 1000"
    )
    yield name
    client.command(f"DROP TABLE {name} SYNC")


def count(client: Client, table: str = "t") -> int:
    return int(client.query(f"SELECT count() FROM {table}").result_rows[0][0])


def exchange(
    url: str, method: str, target: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(url)
    login = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
    with closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)) as connection:
        connection.request(method, target, body, {"Authorization": f"Basic {login}", **(headers or {})})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def arrow(rows: range, text: str = "x") -> bytes:
    sink = io.BytesIO()
    batch = pa.record_batch({"id": pa.array(rows, pa.int64()), "text": pa.array([f"{text}{n}" for n in rows])})
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


# What clients do


@pytest.mark.parametrize("compress", [True, False, "lz4", "zstd", "gzip"])
def test_rows_come_back_as_they_were_inserted(url: str, table: str, compress: Any) -> None:
    with closing(connect(url, compress=compress)) as client:
        rows = [[n, f"é'\\\t\n{n}"] for n in range(3000)]
        summary = client.insert(table, rows, column_names=["id", "text"])
        assert summary.written_rows == 3000
        found = client.query(f"SELECT id, text FROM {table} ORDER BY id").result_rows
        assert [list(row) for row in found] == rows


def test_large_arrow_answers_come_every_time(client: Client) -> None:
    """Threads of the engine that write Arrow at the same time can block forever; one run in ten did."""
    client.command("CREATE TABLE many (id Int64) ENGINE = MergeTree ORDER BY id")
    for start in range(0, 1_000_000, 100_000):
        client.command(f"INSERT INTO many SELECT number + {start} FROM numbers(100000)")
    for _ in range(30):
        found = client.query_arrow("SELECT id, count() AS copies FROM many WHERE id < 300000 GROUP BY id")
        assert found.num_rows == 300_000
    client.command("DROP TABLE many SYNC")


@pytest.mark.parametrize("value", ["", "tab\tnew\nline", "quote'\"`", "back\\slash\\N", "é𝄞", "{x:String} ; -- FORMAT"])
def test_parameters_arrive_as_they_are(client: Client, value: str) -> None:
    parameters = {"text": value, "texts": [value, value], "nothing": None, "number": 1 << 63}
    query = "SELECT {text:String}, {texts:Array(String)}, {nothing:Nullable(String)}, {number:UInt64}"
    assert client.query(query, parameters=parameters).result_rows == [(value, [value, value], None, 1 << 63)]


def test_large_results_stream_and_whole_ones_have_a_length(url: str) -> None:
    query = "SELECT number FROM numbers(500000)"
    status, headers, body = exchange(url, "POST", "/", query)
    assert (status, headers["transfer-encoding"], body.count(b"\n")) == (200, "chunked", 500_000)
    status, headers, body = exchange(url, "POST", "/?wait_end_of_query=1", query)
    assert (status, int(headers["content-length"]), body.count(b"\n")) == (200, len(body), 500_000)


def test_a_result_that_fails_on_its_way_is_an_error_for_the_client(client: Client) -> None:
    query = "SELECT throwIf(number = 3000000, 'broke off') FROM numbers(5000000)"
    with client.query_row_block_stream(query, settings={"max_threads": 1}) as blocks:
        first = len(next(iter(blocks)))
        with pytest.raises((StreamFailureError, DatabaseError), match="broke off"):
            list(blocks)
    assert 0 < first < 3_000_000


def test_dataframes_arrow_and_json_are_the_engines(client: Client) -> None:
    assert client.query_arrow("SELECT number AS n FROM numbers(3)").to_pydict() == {"n": [0, 1, 2]}
    assert json.loads(client.raw_query("SELECT 1 AS a", fmt="JSON"))["data"] == [{"a": 1}]


def test_an_insert_of_a_dataset_compressed_twice_over(client: Client, table: str) -> None:
    client.raw_insert(table, ["id"], gzip.compress(b"1\n2\n") + gzip.compress(b"3\n"), fmt="TSV", compression="gzip")
    assert count(client) == 3


# Requests as they look on the wire


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("", b"INSERT INTO t (id) FORMAT CSV\n1\n2\n"),
        ("INSERT INTO t (id) FORMAT CSV", b"1\n2\n"),
        ("INSERT INTO t (id)", b"FORMAT CSV\n1\n2\n"),
        ("INSERT INTO t (id) VALUES", b"(1), (1 + 1)"),
        ("", b"INSERT INTO t (id) VALUES (1), ({two:Int64})"),
        ("INSERT INTO t (id) VALUES (1), (2)", b""),
        ("", b"INSERT INTO t (id) SELECT number FROM numbers(2)"),
        ("INSERT INTO t (id) SELECT toInt64(n) FROM input('n String') WHERE n != 'x' FORMAT TSV", b"1\nx\n2\n"),
    ],
)
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.usefixtures("table")
def test_statement_and_data_may_stand_anywhere(
    url: str, client: Client, query: str, body: bytes, chunked: bool
) -> None:
    target = "/?" + urlencode({"param_two": "2"} | ({"query": query} if query else {}))
    pieces = (body[at : at + 3] for at in range(0, len(body), 3)) if chunked else body
    status, _, text = exchange(url, "POST", target, pieces)
    assert (status, text) == (200, b"")
    assert count(client) == 2


def test_a_long_list_of_values_is_no_problem(url: str, client: Client, table: str) -> None:
    values = ", ".join(f"({n}, 'FORMAT {n}')" for n in range(50_000))
    assert exchange(url, "POST", "/", f"INSERT INTO t (id, text) VALUES {values}")[0] == 200
    assert count(client) == 50_000


def test_headers_are_a_servers(url: str) -> None:
    status, headers, body = exchange(url, "GET", "/?query=SELECT+1+AS+a&query_id=mine&default_format=JSONEachRow")
    assert (status, json.loads(body)) == (200, {"a": 1})
    assert headers["x-clickhouse-query-id"] == "mine"
    assert headers["x-clickhouse-format"] == "JSONEachRow"
    assert headers["x-clickhouse-timezone"]
    assert headers["x-clickhouse-server-display-name"]
    assert json.loads(headers["x-clickhouse-summary"])["read_rows"] == "1"


def test_checks_of_life_need_no_login(url: str) -> None:
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(parts.hostname or "", parts.port)) as connection:
        # One connection for all: it is kept alive.
        for target in ("/ping", "/", "/replicas_status"):
            connection.request("GET", target)
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"Ok.\n")


@pytest.mark.parametrize("parameters", [{}, {"user": "default"}, {"user": "outhaul", "password": "wrong"}])
def test_a_wrong_login_is_refused_in_clickhouses_words(url: str, parameters: dict[str, str]) -> None:
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(parts.hostname or "", parts.port)) as connection:
        connection.request("POST", "/?" + urlencode(parameters), "SELECT 1")
        response = connection.getresponse()
        text = response.read().decode()
        assert (response.status, response.headers["X-ClickHouse-Exception-Code"]) == (403, "516")
        assert "Authentication failed: password is incorrect, or there is no user with such name" in text
        # And the connection is still good for a right one.
        login = {"X-ClickHouse-User": parts.username or "", "X-ClickHouse-Key": parts.password or ""}
        connection.request("POST", "/", "SELECT 1", login)
        assert connection.getresponse().read() == b"1\n"


def test_the_url_may_carry_the_login(url: str) -> None:
    parts = urlsplit(url)
    target = "/?" + urlencode({"user": parts.username, "password": parts.password, "query": "SELECT 1"})
    with closing(http.client.HTTPConnection(parts.hostname or "", parts.port)) as connection:
        connection.request("GET", target)
        assert connection.getresponse().read() == b"1\n"


@pytest.mark.parametrize(
    ("statement", "code", "status"),
    [
        ("SELECT * FROM nope", 60, 404),
        ("SELEC 1", 62, 400),
        ("1 + 1", 62, 400),
        ("INSERT INTO nope FORMAT CSV\n1", 60, 404),
        ("INSERT INTO t (id) FORMAT CSV\nx", 117, 400),
        ("INSERT INTO t (nope) FORMAT CSV\nx", 16, 500),
        ("SELECT throwIf(1, 'fenced')", 395, 500),
        ("SELECT 1 FORMAT Nope", 73, 404),
        ("CREATE USER x", 497, 403),
        ("SELECT 1 SETTINGS nope = 1", 115, 404),
    ],
)
@pytest.mark.usefixtures("table")
def test_errors_have_clickhouses_code_and_status(url: str, statement: str, code: int, status: int) -> None:
    found, headers, text = exchange(url, "POST", "/", statement)
    assert (found, headers["x-clickhouse-exception-code"]) == (status, str(code))
    assert text.decode().startswith(f"Code: {code}. DB::Exception: ")
    assert "(version " in text.decode()


def test_clickhouse_connect_reads_code_and_name(client: Client) -> None:
    with pytest.raises(ClickHouseError) as caught:
        client.query("SELECT * FROM nope")
    assert getattr(caught.value, "code", None) == 60
    assert getattr(caught.value, "name", None) == "UNKNOWN_TABLE"


def test_unknown_settings_and_databases_are_errors(url: str) -> None:
    assert exchange(url, "POST", "/?nope=1", "SELECT 1")[1]["x-clickhouse-exception-code"] == "115"
    assert exchange(url, "POST", "/?database=nope", "SELECT 1")[1]["x-clickhouse-exception-code"] == "81"


def test_a_get_only_reads(url: str, client: Client, table: str) -> None:
    for statement in ("INSERT INTO t (id) VALUES (1)", "DROP TABLE t", "INSERT INTO t (id) SELECT 1"):
        _, headers, _ = exchange(url, "GET", "/?" + urlencode({"query": statement, "max_threads": 1}))
        assert headers["x-clickhouse-exception-code"] == "164"
    assert count(client) == 0


def test_settings_and_parameters_of_one_request_reach_no_other(url: str) -> None:
    target = "/?max_threads=7&param_x=1&database=system"
    query = "SELECT getSetting('max_threads'), currentDatabase()"
    assert exchange(url, "POST", target, query)[2] == b"7\tsystem\n"
    assert exchange(url, "POST", "/", query)[2] != b"7\tsystem\n"
    assert exchange(url, "POST", "/", "SELECT {x:UInt8}")[1]["x-clickhouse-exception-code"] == "456"


def test_form_fields_are_parameters(url: str) -> None:
    with closing(connect(url, form_encode_query_params=True)) as client:
        assert client.query("SELECT {a:String}", parameters={"a": "x\n'y"}).result_rows == [("x\n'y",)]


def test_a_body_without_a_length_is_refused(url: str) -> None:
    answer = speak(url, "POST / HTTP/1.1", b"")
    assert answer.startswith(b"HTTP/1.1 411 ")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_inserts_a_file_and_reads_it_back(url: str, client: Client, table: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("".join(f"{n},2024-0{1 + n % 9}-01,text\n" for n in range(200_000)))

    def curl(*options: str) -> str:
        command = ["curl", "-sS", "--fail-with-body", *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    base = url.rpartition("/")[0]
    # A large body makes curl ask first (Expect: 100-continue).
    assert curl("--data-binary", f"@{file}", f"{base}/?query=INSERT+INTO+t+FORMAT+CSV") == ""
    chunked = ["-T", str(file), "-X", "POST", "-H", "Transfer-Encoding: chunked"]
    # The same rows again: without their own token they would be taken for a repetition.
    assert curl(*chunked, f"{base}/?query=INSERT+INTO+t+FORMAT+CSV&insert_deduplication_token=again") == ""
    assert curl("--compressed", f"{base}/?query=SELECT+count()+FROM+t&enable_http_compression=1") == "400000\n"


# Nothing half done


def speak(url: str, first_line: str, body: bytes, *headers: str) -> bytes:
    """Send a request as given, close our side, return whatever comes back."""
    parts = urlsplit(url)
    login = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
    head = "\r\n".join([first_line, "Host: x", f"Authorization: Basic {login}", *headers, "", ""])
    with socket.create_connection((parts.hostname or "", parts.port or 0), 30) as connection:
        connection.sendall(head.encode() + body)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


TARGET = "POST /?query=INSERT+INTO+t+(id)+FORMAT+TSV HTTP/1.1"


@pytest.mark.parametrize(
    ("first_line", "headers", "body"),
    [
        (TARGET, ["Content-Length: 9"], b"1\n2\n"),
        (TARGET, ["Transfer-Encoding: chunked"], b"4\r\n1\n2\n\r\n"),
        (TARGET, ["Transfer-Encoding: chunked"], b"4\r\n1\n2\n\r\n0\r\n"),
        (TARGET, ["Transfer-Encoding: chunked"], b"4\r\n1\n"),
        (TARGET, ["Transfer-Encoding: chunked"], b"4\r\n1\n2\n\r"),
        (TARGET, ["Transfer-Encoding: chunked"], b""),
        ("POST / HTTP/1.1", ["Content-Length: 90"], b"INSERT INTO t (id) VALUES (1)"),
        ("POST / HTTP/1.1", ["Content-Length: 90"], b"INSERT INTO t (id) SELECT 1"),
    ],
)
@pytest.mark.usefixtures("table")
def test_a_body_that_ends_early_is_never_executed(
    url: str, client: Client, first_line: str, headers: list[str], body: bytes
) -> None:
    assert speak(url, first_line, body, *headers) == b""
    assert count(client) == 0


def test_a_cut_compressed_body_is_an_error_and_never_executed(url: str, client: Client, table: str) -> None:
    body = gzip.compress(b"1\n2\n")[:-4]
    status, headers, _ = exchange(
        url, "POST", "/?query=INSERT+INTO+t+(id)+FORMAT+TSV", body, {"Content-Encoding": "gzip"}
    )
    assert (status, headers["x-clickhouse-exception-code"]) == (500, "33")
    assert count(client) == 0


def test_bad_chunks_are_an_error(url: str, client: Client, table: str) -> None:
    assert b" 33\r\n" in speak(url, TARGET, b"zz\r\n1\n\r\n0\r\n\r\n", "Transfer-Encoding: chunked")
    assert count(client) == 0


# The product's own statement

STATEMENT = """INSERT INTO t (id, text)
SELECT id, coalesce(text, 'FROM input(x)')
FROM input('id Int64, text String')
WHERE throwIf((SELECT max(epoch) FROM epochs WHERE source = {source:String}) > {epoch:UInt64}, 'fenced') = 0
  AND id NOT IN (SELECT id FROM t WHERE id BETWEEN 0 AND 9)
FORMAT ArrowStream"""


@pytest.fixture
def epochs(client: Client) -> Iterator[None]:
    client.command("CREATE OR REPLACE TABLE epochs (source String, epoch UInt64) ENGINE = MergeTree ORDER BY source")
    client.command("INSERT INTO epochs VALUES ('s', 5)")
    yield
    client.command("DROP TABLE epochs SYNC")


def store(client: Client, payload: bytes, token: str, epoch: int = 5) -> None:
    settings = {
        "insert_deduplication_token": token,
        "async_insert": 0,
        "wait_end_of_query": 1,
        "max_partitions_per_insert_block": 0,
        "max_execution_time": 60,
        "log_comment": "outhaul:s",
    }
    client.command(STATEMENT, parameters={"source": "s", "epoch": epoch}, settings=settings, data=payload)


@pytest.mark.usefixtures("epochs")
def test_a_batch_is_stored_once_however_often_it_is_sent(client: Client, table: str) -> None:
    for _ in range(3):
        store(client, arrow(range(100, 1100)), "token")
    assert count(client) == 1000
    store(client, arrow(range(100, 1100)), "another token")
    assert count(client) == 2000


@pytest.mark.usefixtures("epochs")
def test_rows_that_are_there_are_left_out(client: Client, table: str) -> None:
    store(client, arrow(range(6)), "a")
    store(client, arrow(range(12)), "b")
    assert client.query("SELECT id FROM t ORDER BY id").result_columns[0] == list(range(12))


@pytest.mark.usefixtures("epochs")
def test_a_fenced_insert_stores_nothing(client: Client, table: str) -> None:
    with pytest.raises(ClickHouseError, match="fenced") as caught:
        store(client, arrow(range(100)), "token", epoch=4)
    assert getattr(caught.value, "code", None) == 395
    assert count(client) == 0


@pytest.mark.usefixtures("epochs")
def test_tokens_are_remembered_over_a_kill(stack: Stack, url: str, table: str) -> None:
    with closing(connect(url)) as client:
        store(client, arrow(range(100, 200)), "token")
    pid = stack.pid("clickhouse")
    stack.kill("clickhouse")
    assert stack.pid("clickhouse") is None
    stack.up(["clickhouse"])
    assert stack.pid("clickhouse") != pid
    assert stack.env()["OUTHAUL_CLICKHOUSE_URL"] == url
    with closing(connect(url)) as client:
        store(client, arrow(range(100, 200)), "token")
        assert count(client) == 100


def test_a_batch_larger_than_what_is_kept_in_memory(client: Client, table: str) -> None:
    rows = 400_000
    lines = b"".join(b"%d\t%s\n" % (n, b"x" * 200) for n in range(rows))
    assert len(lines) > 64 << 20
    client.raw_insert(table, ["id", "text"], lines, fmt="TSV")
    assert client.query("SELECT count(), min(length(text)), uniqExact(id) FROM t").result_rows == [(rows, 200, rows)]


# Many at once, and long ones

FOREVER = "SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))"


def until_running(client: Client, comment: str) -> None:
    """Ask until the query with this comment is among the running ones; each answer is the wait."""
    query = "SELECT count() FROM system.processes WHERE Settings['log_comment'] = {comment:String}"
    while client.query(query, parameters={"comment": comment}).result_rows != [(1,)]:
        pass


def test_a_running_query_is_found_by_its_comment_killed_and_blocks_no_insert(url: str, client: Client) -> None:
    outcome: list[Exception] = []

    def run() -> None:
        with closing(connect(url)) as other:
            try:
                other.query(FOREVER, settings={"log_comment": "victim"})
            except ClickHouseError as error:
                outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until_running(client, "victim")
    assert client.ping()
    client.command("KILL QUERY WHERE Settings['log_comment'] = 'victim' SYNC")
    thread.join(30)
    assert [getattr(error, "code", None) for error in outcome] == [394]


def test_max_execution_time_ends_a_query(client: Client) -> None:
    with pytest.raises(ClickHouseError) as caught:
        client.query(FOREVER, settings={"max_execution_time": 0.3})
    assert getattr(caught.value, "code", None) == 159


def test_a_stream_that_nobody_reads_on_is_cancelled(url: str, client: Client) -> None:
    parts = urlsplit(url)
    login = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
    target = "/?" + urlencode({"query": "SELECT * FROM system.numbers", "log_comment": "endless"})
    with closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)) as connection:
        connection.request("GET", target, headers={"Authorization": f"Basic {login}"})
        response = connection.getresponse()
        assert response.read(10) == b"0\n1\n2\n3\n4\n"
        until_running(client, "endless")
        response.close()
    query = "SELECT count() FROM system.processes WHERE Settings['log_comment'] = 'endless'"
    while client.query(query).result_rows != [(0,)]:
        pass


def test_many_clients_insert_and_query_at_once(url: str, client: Client, table: str) -> None:
    def work(number: int) -> int:
        with closing(connect(url)) as own:
            for piece in range(5):
                own.insert(table, [[number * 10 + piece, NAMES]], column_names=["id", "text"])
                assert own.query("SELECT {x:UInt32}", parameters={"x": number}).result_rows == [(number,)]
            return int(own.query(f"SELECT count() FROM {table} WHERE intDiv(id, 10) = {number}").result_rows[0][0])

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(work, range(24))) == [5] * 24
    assert count(client) == 120


@pytest.mark.thorough
def test_a_stop_ends_what_runs_and_keeps_what_is_stored(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    stack.up(["clickhouse"])
    url = stack.env()["OUTHAUL_CLICKHOUSE_URL"]
    outcome: list[tuple[int, str]] = []

    def run() -> None:
        status, headers, _ = exchange(url, "POST", "/?log_comment=long", FOREVER)
        outcome.append((status, headers["x-clickhouse-exception-code"]))

    thread = threading.Thread(target=run)
    try:
        with closing(connect(url)) as client:
            client.command("CREATE TABLE kept (a Int64) ENGINE = MergeTree ORDER BY a")
            client.command("INSERT INTO kept VALUES (1)")
            thread.start()
            until_running(client, "long")
        stack.down()
        thread.join(30)
        assert outcome == [(500, "394")]
        stack.up(["clickhouse"])
        with closing(connect(stack.env()["OUTHAUL_CLICKHOUSE_URL"])) as client:
            assert count(client, "kept") == 1
    finally:
        stack.down()


def test_a_second_front_over_the_same_data_is_refused_and_harms_nothing(stack: Stack, url: str) -> None:
    home = stack.data_dir / "clickhouse"
    argv = [sys.executable, "-m", "outhaul.deploy.local.clickhouse_http.server", str(home), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    second = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60, env=environment)
    assert second.returncode != 0
    assert exchange(url, "POST", "/", "SELECT 1")[2] == b"1\n"
