"""Socket of a stream -> how much may wait in it before the server has to hold its rows back.

Edge: socket options. The walsender hands every row to its kernel by itself. While the receiver's window is open, each
goes out as a packet of its own, which costs the sender on one host twice what decoding the row does
(docs/performance.md). Where the window is shut, rows gather in the server's socket and cross in one go as soon as it
opens. So the window is made no larger than the path needs, and cdc_reader/wire.py leaves it shut for a moment between
two looks.

Source: https://man7.org/linux/man-pages/man7/tcp.7.html (TCP_INFO, SO_RCVBUF, SO_RCVLOWAT)
"""

from __future__ import annotations

import socket
import struct

# What a path must be able to carry: ten times what a walsender gives.
_BYTES_PER_US = 1000
_FLOOR_BYTES = 64 << 10
# Beyond a millisecond the kernel's own tuning knows better, and packets are gathered by the network card.
_CEILING_BYTES = 1 << 20

# `tcpi_min_rtt` of Linux' struct tcp_info, in microseconds.
_MIN_RTT = struct.Struct("=148xI")


def decide_bytes(round_trip_us: int) -> int | None:
    """Return the size of the receive buffer for a path, in bytes; None leaves it to the kernel."""
    needed = round_trip_us * _BYTES_PER_US
    return max(needed, _FLOOR_BYTES) if needed <= _CEILING_BYTES else None


class Window:
    """The receiving side of one socket."""

    def __init__(self, sock: socket.socket) -> None:
        """Look at a connected socket; the caller keeps and closes it."""
        self._socket = sock
        self._wake_at_bytes = 1

    def fit(self) -> int | None:
        """Size the buffer for the path; return its bytes, or None where the kernel goes on deciding."""
        if self._socket.family not in {socket.AF_INET, socket.AF_INET6}:
            return None
        told = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _MIN_RTT.size)
        # An older kernel tells less; then nothing is known of the path.
        size = decide_bytes(_MIN_RTT.unpack(told)[0]) if len(told) == _MIN_RTT.size else None
        if size is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        return size

    def wake_at(self, size: int) -> None:
        """Let the socket count as readable from `size` bytes on; a link that was cut is so anyway."""
        if size != self._wake_at_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
            self._wake_at_bytes = size
