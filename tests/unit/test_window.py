"""The receive buffer is as large as the path needs, and no larger."""

import socket

import pytest

from cdc_reader.window import Window, decide_bytes


@pytest.mark.parametrize(
    ("round_trip_us", "size"),
    [(0, 65_536), (30, 65_536), (200, 200_000), (1000, 1_000_000), (5000, None), (80_000, None)],
)
def test_a_longer_path_gets_more_until_the_kernel_knows_better(round_trip_us: int, size: int | None) -> None:
    assert decide_bytes(round_trip_us) == size


def test_a_socket_of_this_host_gets_little_and_one_without_tcp_is_left_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        before = client.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        size = Window(client).fit()
        assert size is not None
        # The kernel doubles what it is told, for its own bookkeeping.
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * size
        assert size <= 1 << 20
        assert before > 0
    one, other = socket.socketpair()
    with one, other:
        assert Window(one).fit() is None


def test_a_socket_counts_as_readable_from_the_bytes_on_that_were_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        window = Window(client)
        window.wake_at(4096)
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 4096
