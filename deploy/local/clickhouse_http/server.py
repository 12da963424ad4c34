"""HTTP requests to the embedded ClickHouse engine -> the answers that a ClickHouse server would give.

Edge, and a process of its own: `python -m outhaul.deploy.local.clickhouse_http.server`. The engine is real, the server
is not. Storage, SQL, types, formats, deduplication tokens, settings, error texts and codes are ClickHouse's own. Users,
sessions, quotas, the native protocol, clusters and `system.query_log` do not exist here. Known differences:

- One user exists. Sessions are accepted but not kept: no temporary tables, no SET across requests.
- `query_id` is echoed, but `system.processes` shows an id of the engine. Find a query by its `log_comment`.
- If a client closes its connection before the first piece of the result, its query is not cancelled; it ends at
  `max_execution_time`.
- Results in formats with a header or footer (JSON, Parquet, ArrowStream, ...WithNames) are built in memory. Results in
  other formats are sent in the engine's pieces.
- External tables and ClickHouse's own compression (`compress=1`) are not supported. A statement may have one `input()`,
  with a structure.
- The database `default` is an overlay of the engine. Queries that name no database run in `outhaul`.

The front receives the whole body before it executes the statement, so an incomplete request is never executed.

Source: https://clickhouse.com/docs/interfaces/http
"""

from __future__ import annotations

import argparse
import hmac
import os
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import NoReturn

from outhaul.deploy.local.clickhouse_http.content_codings import CodingError, compressed
from outhaul.deploy.local.clickhouse_http.engine import Engine, EngineError, format_settings
from outhaul.deploy.local.clickhouse_http.http_reply import send, send_whole
from outhaul.deploy.local.clickhouse_http.http_request import (
    Login,
    Request,
    form_fields,
    login,
    login_error,
    read_request,
)
from outhaul.deploy.local.clickhouse_http.query_limit import Slots
from outhaul.deploy.local.clickhouse_http.request_body import BodyError, Spool, TruncatedBodyError, pieces
from outhaul.deploy.local.clickhouse_http.response_parts import Failure, content_type, failure, is_streamable
from outhaul.deploy.local.clickhouse_http.sql_statement import (
    SYNTAX_ERROR,
    DataInsert,
    Plain,
    StatementError,
    read_statement,
)

# The stack's URL names this database; queries that name no database also run in it.
DATABASE = "outhaul"

_LONGEST_STATEMENT_BYTES = 64 << 20
_MAX_QUERIES = 32
_QUEUE_S = 10.0
_IDLE_S = 300
_DRAIN_S = 5.0


class Front(ThreadingHTTPServer):
    """The listening socket, and the engine, account and slots that all requests share."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    engine: Engine

    def __init__(self, host: str, port: int, account: Login, slots: Slots) -> None:
        self.account = account
        self.slots = slots
        self.display_name = socket.gethostname()
        super().__init__((host, port), Handler)

    def admits(self, claimed: Login) -> bool:
        """Return whether name and password are correct; the comparison takes constant time."""
        is_user = hmac.compare_digest(claimed.user.encode(), self.account.user.encode())
        return hmac.compare_digest(claimed.password.encode(), self.account.password.encode()) and is_user

    def handle_error(self, request: object, client_address: object) -> None:
        """Log an error, unless a client has closed its connection."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError, TruncatedBodyError)):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    """One connection of a client; it handles one request at a time."""

    server: Front
    protocol_version = "HTTP/1.1"
    server_version = "ClickHouse"
    sys_version = ""
    timeout = _IDLE_S
    disable_nagle_algorithm = True
    # Buffered, so that the headers and body of a short answer are sent in one packet.
    wbufsize = 1 << 16

    def do_GET(self) -> None:
        """Answer a ping, or a query that only reads."""
        path = self.path.partition("?")[0]
        if path in {"/ping", "/replicas_status"} or (path == "/" and "query=" not in self.path):
            send_whole(self, 200, {"Content-Type": "text/html; charset=UTF-8"}, b"Ok.\n")
        elif path in {"/", "/query"}:
            self._query()
        else:
            send_whole(
                self, 404, {"Content-Type": "text/plain; charset=UTF-8"}, f"There is no handle {self.path}\n".encode()
            )

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def do_POST(self) -> None:
        """Answer a query."""
        self._query()

    def log_message(self, *_: object) -> None:
        """Write no access log, since it would grow with every batch."""

    def _query(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._body = pieces(self.rfile, headers)
        try:
            try:
                self._answer(headers)
            except StatementError as error:
                self._refuse(failure(str(error), self.server.engine.version))
            except EngineError as error:
                self._refuse(error.failure)
        except (BodyError, CodingError) as error:
            # The rest of the body could be mistaken for the next request.
            self.close_connection = True
            self._send_failure(
                failure(f"Code: 33. DB::Exception: {error}. (CANNOT_READ_ALL_DATA)", self.server.engine.version)
            )
        except (TruncatedBodyError, ConnectionError, TimeoutError):
            self.close_connection = True

    def _answer(self, headers: dict[str, str]) -> None:
        claimed = login(self.path, headers)
        if not self.server.admits(claimed):
            raise login_error(claimed.user)
        if self.command == "POST" and not headers.keys() & {"content-length", "transfer-encoding"}:
            raise StatementError(
                381,
                "HTTP_LENGTH_REQUIRED",
                "The Transfer-Encoding is not chunked and there is no Content-Length header for POST request",
            )
        is_form = headers.get("content-type", "").lower().startswith("multipart/form-data")
        form = form_fields(headers["content-type"], b"".join(self._body)) if is_form else ()
        request = read_request(self.command, self.path, headers, form)
        with Spool() as spool:
            statement = self._statement(request.query.encode(errors="surrogateescape"), spool)
            with self.server.slots.hold():
                self._execute(request, statement, spool)

    def _statement(self, query: bytes, spool: Spool) -> Plain | DataInsert:
        """Return the statement, which may begin in the URL; write the data after it to the spool, to the body's end."""
        text = bytearray(query + b"\n" if query else b"")
        statement, wanted = None, 0
        while statement is None:
            piece = next(self._body, None)
            text += piece or b""
            if piece is not None and len(text) < wanted:
                continue
            statement = read_statement(bytes(text), whole=piece is None)
            # Try again only when the text has doubled, so that a long statement is not parsed for every piece.
            wanted = 2 * len(text)
            if statement is None and wanted > 2 * _LONGEST_STATEMENT_BYTES:
                raise StatementError(SYNTAX_ERROR, "SYNTAX_ERROR", "Syntax error: Max query size exceeded")
        if isinstance(statement, DataInsert):
            spool.write(memoryview(text)[statement.data_from :])
            for piece in self._body:
                spool.write(piece)
        return statement

    def _execute(self, request: Request, statement: Plain | DataInsert, spool: Spool) -> None:
        name = (statement.format if isinstance(statement, Plain) else None) or request.default_format
        settings = (*request.settings, *format_settings(name))
        with self.server.engine.connection(request.database, settings) as connection:
            if isinstance(statement, DataInsert):
                parts = connection.run(statement.with_path(spool.path), name, request.parameters)
            elif statement.selects and is_streamable(name):
                parts = connection.stream(statement.text, name, request.parameters)
            else:
                parts = connection.run(statement.text, name, request.parameters)
            first = next(parts, None)
            headers = self._headers(request.query_id)
            if first is None and not (isinstance(statement, Plain) and statement.selects):
                send_whole(self, 200, {**headers, "X-ClickHouse-Summary": connection.summary.header()}, b"")
                return
            headers |= {"Content-Type": content_type(name), "X-ClickHouse-Format": name}
            if request.compression:
                headers |= {"Content-Encoding": request.compression}
            send(
                self,
                compressed(chain([first] if first else [], parts), request.compression),
                lambda: {**headers, "X-ClickHouse-Summary": connection.summary.header()},
                hold_all=request.wait_end_of_query,
            )

    def _refuse(self, error: Failure) -> None:
        """Send an error, after the rest of the body has been read."""
        for _ in self._body:
            pass
        self._send_failure(error)

    def _send_failure(self, error: Failure) -> None:
        headers = {**self._headers(""), "X-ClickHouse-Exception-Code": str(error.code)}
        send_whole(self, error.status, headers, f"{error.text}\n".encode(errors="surrogateescape"))

    def _headers(self, query_id: str) -> dict[str, str]:
        headers = {
            "Content-Type": "text/plain; charset=UTF-8",
            "X-ClickHouse-Server-Display-Name": self.server.display_name,
            "X-ClickHouse-Timezone": self.server.engine.timezone,
        }
        # A line break in the id would let a client add headers of its own.
        plain = "".join(letter for letter in query_id if " " < letter <= "~")
        return headers | ({"X-ClickHouse-Query-Id": plain} if plain else {})


def serve(host: str, port: int, account: Login) -> None:
    """Serve the data in the working directory until SIGTERM or SIGINT; then wait up to 6 s for running queries."""
    slots = Slots(_MAX_QUERIES, _QUEUE_S)
    # The socket listens before the engine opens. So a taken port fails at once, and early clients wait for an answer.
    front = Front(host, port, account, slots)
    front.engine = engine = Engine("data", DATABASE)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=front.serve_forever, daemon=True).start()
    stop.wait()
    front.shutdown()
    front.server_close()
    if not slots.wait_idle(_DRAIN_S):
        engine.cancel_all()
        slots.wait_idle(1.0)
    engine.close()


def main() -> NoReturn:
    """Run the front of one data directory."""
    parser = argparse.ArgumentParser(prog="clickhouse_front")
    parser.add_argument("directory", type=Path, help="contains `account`; `data` is created in it")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on: 0.0.0.0 in a container")
    options = parser.parse_args()
    # The engine puts its path into URLs and globs. A relative path contains no special characters of theirs.
    os.chdir(options.directory)
    user, _, password = Path("account").read_text(encoding="utf-8").strip().partition(":")
    serve(options.host, options.port, Login(user, password))
    sys.stdout.flush()
    # Exit at once: threads of idle connections must not run while the interpreter shuts down.
    os._exit(0)


if __name__ == "__main__":
    main()
