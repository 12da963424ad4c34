"""Socket of a stream -> how much may wait in it before the server has to hold its rows back.

Edge: socket options. The walsender hands every row to its kernel by itself. While the receiver's window is open, each
goes out as a packet of its own, which costs the sender on one host twice what decoding the row does
(docs/performance.md). Where the window is shut, rows gather in the server's socket and cross in one go as soon as it
opens. So the window is made no larger than the path needs, and cdc_reader/capture/wire.py leaves it shut for a moment
between
two looks.

A narrow buffer is for a socket that is read. Rows of few bytes take many times their size of it, so one that nobody
reads overflows, and the kernel drops what it had promised room for. From then on (Linux 6.17) it takes the server's
word that our feedback arrived for one from outside the window, and after `tcp_user_timeout` for a broken link. Whoever
pauses therefore widens the window first, and leaves its size to the kernel, which then makes room instead of dropping.

Source: https://man7.org/linux/man-pages/man7/tcp.7.html (TCP_INFO, SO_RCVBUF, SO_RCVLOWAT), socket(7) (SO_BUF_LOCK),
tcp_sequence() and tcp_clamp_window() in Linux' net/ipv4/tcp_input.c
"""

from __future__ import annotations

import contextlib
import socket
import struct

# What a path must be able to carry: ten times what a walsender gives.
_BYTES_PER_US = 1000
_FLOOR_BYTES = 64 << 10
# Beyond a millisecond the kernel's own tuning knows better, and packets are gathered by the network card.
_CEILING_BYTES = 1 << 20

# `tcpi_min_rtt` of Linux' struct tcp_info, in microseconds.
_MIN_RTT = struct.Struct("=148xI")
# Linux' SO_BUF_LOCK: 0 lets the kernel tune again what SO_RCVBUF has fixed. Before Linux 5.14 there is none.
_SO_BUF_LOCK = 72


def decide_bytes(round_trip_us: int) -> int | None:
    """Return the size of the receive buffer for a path, in bytes; None leaves it to the kernel."""
    needed = round_trip_us * _BYTES_PER_US
    return max(needed, _FLOOR_BYTES) if needed <= _CEILING_BYTES else None


class Window:
    """The receiving side of one socket."""

    def __init__(self, sock: socket.socket) -> None:
        """Measure the path of a connected socket, and narrow it; the caller keeps and closes it."""
        self._socket = sock
        self._wake_at_bytes = 1
        self.bytes = self._measure()
        self.is_narrow = False
        self.narrow()

    def narrow(self) -> None:
        """Let as much wait as the path needs; what waits already stays."""
        if self.bytes is not None and not self.is_narrow:
            self._set(self.bytes)
            self.is_narrow = True

    def widen(self) -> None:
        """Let as much wait as the kernel likes, before a pause in reading."""
        if self.is_narrow:
            self._set(_CEILING_BYTES)
            self._unlock()
            self.is_narrow = False

    def wake_at(self, size: int) -> None:
        """Let the socket count as readable from `size` bytes on; a link that was cut is so anyway."""
        if size != self._wake_at_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
            self._wake_at_bytes = size

    def _measure(self) -> int | None:
        if self._socket.family not in {socket.AF_INET, socket.AF_INET6}:
            return None
        told = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _MIN_RTT.size)
        # An older kernel tells less; then nothing is known of the path.
        size = decide_bytes(_MIN_RTT.unpack(told)[0]) if len(told) == _MIN_RTT.size else None
        # What cannot be widened again must not be narrow: `net.core.rmem_max` may be small.
        if size is not None and self._set(_CEILING_BYTES) < 2 * self._set(size):
            self._unlock()
            return None
        return size

    def _set(self, size: int) -> int:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def _unlock(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_BUF_LOCK, 0)
