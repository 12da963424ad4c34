"""A server that speaks enough of Postgres' protocol to refuse every connection as the name of its database says.

A process of its own, since psycopg does not let other threads run while it opens a replication connection. The name
is JSON: severity, code, words, and how often; connections after that are closed without an answer.
"""

from __future__ import annotations

import json
import socket
import struct
from collections import Counter

_ENCRYPTION = {struct.pack("!I", 80877103), struct.pack("!I", 80877104)}


def _startup(client: socket.socket) -> dict[str, str]:
    while True:
        (length,) = struct.unpack("!I", client.recv(4, socket.MSG_WAITALL))
        message = client.recv(length - 4, socket.MSG_WAITALL)
        if message not in _ENCRYPTION:
            words = message[4:].decode().split("\0")
            return dict(zip(words[::2], words[1::2], strict=False))
        client.sendall(b"N")


def _refusal(severity: str, code: str, words: str) -> bytes:
    fields = {"S": severity, "V": "FATAL", "C": code, "M": words, "F": "postmaster.c", "L": "1", "R": "x"}
    body = b"".join(f"{key}{value}\0".encode() for key, value in fields.items()) + b"\0"
    return b"E" + struct.pack("!I", 4 + len(body)) + body


def main() -> None:
    """Print the port, then serve until the process is ended."""
    seen: Counter[str] = Counter()
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            with server.accept()[0] as client:
                name = _startup(client)["database"]
                severity, code, words, times = json.loads(name)
                seen[name] += 1
                if seen[name] <= times:
                    client.sendall(_refusal(severity, code, words))


if __name__ == "__main__":
    main()
