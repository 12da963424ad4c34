"""Socket of a stream -> the size of its receive buffer: how many bytes may wait in it before the server must hold rows.

Edge: socket options. The walsender passes every row to its kernel separately. While the receiver's TCP window is open,
each row is sent in its own packet. On one host, that costs the sender twice as much as decoding the row
(docs/performance.md). While the window is shut, rows gather in the server's socket and are sent at once when it opens.
So the window is no larger than the path needs, and cdc_reader/capture/wire.py does not read for a moment after each
read.

A narrow buffer is only for a socket that is read. Small rows need many times their size in it, so the buffer overflows
if nobody reads, and the kernel drops data for which it had promised room. From then on (Linux 6.17) it treats the
server's acknowledgement of the feedback as one from outside the window, and after `tcp_user_timeout` it treats the link
as broken. So before a pause the reader widens the window and lets the kernel choose its size: then the kernel makes
room and drops nothing.

Source: https://man7.org/linux/man-pages/man7/tcp.7.html (TCP_INFO, SO_RCVBUF, SO_RCVLOWAT), socket(7) (SO_BUF_LOCK),
tcp_sequence() and tcp_clamp_window() in Linux' net/ipv4/tcp_input.c
"""

from __future__ import annotations

import contextlib
import socket
import struct

# Throughput that the buffer must allow: ten times that of a walsender.
_BYTES_PER_US = 1000
_FLOOR_BYTES = 64 << 10
# For round trips of more than a millisecond, the kernel tunes the buffer better, and the network card gathers packets.
_CEILING_BYTES = 1 << 20

# `tcpi_min_rtt` of Linux' struct tcp_info, in microseconds.
_MIN_RTT = struct.Struct("=148xI")
# Linux' SO_BUF_LOCK, since 5.14: with 0, the kernel tunes the size again that SO_RCVBUF has fixed.
_SO_BUF_LOCK = 72


def decide_bytes(round_trip_us: int) -> int | None:
    """Return the size of the receive buffer for a path, in bytes; None leaves it to the kernel."""
    needed = round_trip_us * _BYTES_PER_US
    return max(needed, _FLOOR_BYTES) if needed <= _CEILING_BYTES else None


class Window:
    """The receiving side of one socket."""

    def __init__(self, sock: socket.socket) -> None:
        """Measure the path of a connected socket, and narrow its buffer; the caller keeps and closes the socket."""
        self._socket = sock
        self._wake_at_bytes = 1
        self.bytes = self._measure()
        self.is_narrow = False
        self.narrow()

    def narrow(self) -> None:
        """Set the buffer to the size that the path needs; bytes in it stay."""
        if self.bytes is not None and not self.is_narrow:
            self._set(self.bytes)
            self.is_narrow = True

    def widen(self) -> None:
        """Let the kernel choose the size of the buffer; call this before a pause in reading."""
        if self.is_narrow:
            self._set(_CEILING_BYTES)
            self._unlock()
            self.is_narrow = False

    def wake_at(self, size: int) -> None:
        """Let the socket be readable from `size` bytes on; a broken link is always readable."""
        if size != self._wake_at_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
            self._wake_at_bytes = size

    def _measure(self) -> int | None:
        if self._socket.family not in {socket.AF_INET, socket.AF_INET6}:
            return None
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _MIN_RTT.size)
        # An older kernel returns less: then the round trip is not known.
        size = decide_bytes(_MIN_RTT.unpack(info)[0]) if len(info) == _MIN_RTT.size else None
        # If `net.core.rmem_max` is too small to widen the buffer again, it must not be narrowed.
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
