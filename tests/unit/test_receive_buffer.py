"""The receive buffer is as large as the path needs, and no larger, except in a pause."""

from __future__ import annotations

import fcntl
import random
import socket
import struct
import termios
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from outhaul.cdc_reader.postgres.receive_buffer import Window, decide_bytes
from tests.conftest import until

if TYPE_CHECKING:
    from collections.abc import Iterator

_LINKS = 10
_STEPS = 500
_ROW = b"x" * 60
_FEEDBACK = b"f" * 34


@contextmanager
def joined() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield two ends of a TCP connection, the reader's first."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        reader = stack.enter_context(socket.create_connection(listening.getsockname()))
        server = stack.enter_context(listening.accept()[0])
        for end in (reader, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setblocking(False)
        yield reader, server


def buffer_bytes(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def send_rows(server: socket.socket, count: int) -> None:
    """Send one row a packet, until the socket takes no more."""
    try:
        for _ in range(count):
            server.send(_ROW)
    except BlockingIOError:
        pass


def unacknowledged_bytes(sock: socket.socket) -> int:
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4))[0])


@pytest.mark.parametrize(
    ("round_trip_us", "size"),
    [(0, 65_536), (30, 65_536), (200, 200_000), (1000, 1_000_000), (5000, None), (80_000, None)],
)
def test_a_longer_path_gets_more_until_the_kernel_knows_better(round_trip_us: int, size: int | None) -> None:
    assert decide_bytes(round_trip_us) == size


def test_a_socket_of_this_host_gets_little_and_one_without_tcp_is_left_alone() -> None:
    with joined() as (reader, _):
        size = Window(reader).bytes
        assert size is not None
        # The kernel doubles what it is told, for its own bookkeeping.
        assert buffer_bytes(reader) == 2 * size
        assert size <= 1 << 20
    one, other = socket.socketpair()
    with one, other:
        before = buffer_bytes(one)
        window = Window(one)
        window.widen()
        window.narrow()
        assert window.bytes is None
        assert buffer_bytes(one) == before


def test_a_window_is_widened_and_narrowed_again() -> None:
    with joined() as (reader, _):
        window = Window(reader)
        narrow = buffer_bytes(reader)
        window.widen()
        assert buffer_bytes(reader) >= 2 * narrow
        assert not window.is_narrow
        window.narrow()
        assert buffer_bytes(reader) == narrow
        assert window.is_narrow


@pytest.mark.parametrize("widened_at", [0, _STEPS - 10])
def test_what_a_paused_reader_sends_is_acknowledged_while_rows_keep_coming(widened_at: int) -> None:
    """A kernel that drops what it promised room for takes the server's answers for strays, and the link for dead."""
    chance = random.Random(1)
    with ExitStack() as stack:
        links = [stack.enter_context(joined()) for _ in range(_LINKS)]
        windows = [Window(reader) for reader, _ in links]
        # A trickle, as it is what ends in the midst of what was promised.
        for step in range(_STEPS):
            for window, (reader, server) in zip(windows, links, strict=True):
                if step == widened_at:
                    window.widen()
                send_rows(server, chance.randrange(50))
                reader.send(_FEEDBACK)
            time.sleep(0.001)
        until(lambda: not any(unacknowledged_bytes(reader) for reader, _ in links), within_s=5)


def test_a_socket_counts_as_readable_from_the_configured_number_of_bytes_on() -> None:
    with joined() as (reader, _):
        window = Window(reader)
        window.wake_at(4096)
        assert reader.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 4096
