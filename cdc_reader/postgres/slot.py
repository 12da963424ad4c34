"""Replication slot -> frames as they come; positions and replies -> the slot.

Edge: libpq, through psycopg's PGconn, in COPY BOTH mode. libpq keeps TLS, SCRAM and multi-host DSNs. Nothing here
waits, but `open_link`: the loop waits for the socket, this file reads and writes what is possible at once.

Source: https://www.postgresql.org/docs/current/protocol-replication.html
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq

from outhaul.cdc_reader.postgres.errors import error_of, result_error
from outhaul.cdc_reader.postgres.login import connect_replication
from outhaul.cdc_reader.postgres.receive_buffer import Window
from outhaul.cdc_reader.postgres.timelines import parse
from outhaul.sink.position import History, Lsn

if TYPE_CHECKING:
    from array import array

    from psycopg.pq.abc import PGconn, PGresult

    from outhaul.sink.errors import PipelineError

# libpq grows its buffer for a large row and never shrinks it; as it starts, it takes no more than 16 KiB at a time.
_BUFFER_BYTES = 1 << 20
_ROW_BYTES = _BUFFER_BYTES - 1024


class Link:
    """One walsender session; its process is the owner of the slot as long as it lives."""

    def __init__(self, pgconn: PGconn, slot: str, publication: str) -> None:
        """Wrap an open replication connection."""
        self._pgconn = pgconn
        self._slot = slot
        self._publication = publication
        # A second descriptor of the same socket, since libpq has no call for its options.
        self._socket = socket.socket(fileno=os.dup(pgconn.socket))
        # Before anything large is asked for: what the server was once promised room for must find it.
        self.window = Window(self._socket)
        self.more = False
        self.unsent = False

    def fileno(self) -> int:
        """Return the socket, for a selector."""
        return self._pgconn.socket

    def identify(self) -> History:
        """Ask which history this server writes.

        Raises:
            PipelineError: the server refuses or does not answer.
        """
        of_standby = self._is_standby()
        while True:
            result = self._execute("IDENTIFY_SYSTEM")
            system, timeline = result.get_value(0, 0), result.get_value(0, 1)
            # A promotion between the two answers would make one history of two.
            was, of_standby = of_standby, self._is_standby()
            if was == of_standby:
                return History((system or b"").decode(), int(timeline or b"0"), of_standby)

    def holder(self) -> int | None:
        """Return the process that streams from the slot, as this server sees it; None where none does.

        Raises:
            PipelineError: the server refuses or does not answer.
        """
        # The protocol binds no parameters; the settings take plain names alone.
        result = self._execute(f"SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{self._slot}'")  # noqa: S608
        pid = result.get_value(0, 0) if result.ntuples else None
        return int(pid) if pid else None

    @property
    def pid(self) -> int:
        """Process of Postgres at the other end."""
        return self._pgconn.backend_pid

    def ancestors(self, timeline: int) -> dict[int, Lsn]:
        """Ask where each timeline before this one ended; nothing is known where the server has no such file any more.

        Raises:
            TransientError: the server does not answer.
        """
        if timeline == 1:
            return {}
        try:
            result = self._pgconn.exec_(f"TIMELINE_HISTORY {timeline}".encode())
        except psycopg.Error as error:
            raise error_of(None, str(error)) from error
        if result.status != pq.ExecStatus.TUPLES_OK:
            return {}
        return parse((result.get_value(0, 1) or b"").decode(errors="replace"))

    def start(self, *, binary: bool) -> None:
        """Take the slot and let the stream begin at its confirmed position.

        Raises:
            SlotHeldError: another session has the slot.
            PipelineError: the server refuses or does not answer.
        """
        self._grow_buffer()
        options = f"proto_version '1', publication_names '{self._publication}', messages 'true'"
        options += ", binary 'true'" if binary else ""
        self._execute(f"START_REPLICATION SLOT {self._slot} LOGICAL 0/0 ({options})", expect=pq.ExecStatus.COPY_BOTH)
        self._pgconn.nonblocking = 1

    def read(self, data: bytearray, lengths: array[int], max_bytes: int, max_frames: int) -> None:
        """Append the frames that have arrived to `data`, in order; stop at `max_frames`, or past `max_bytes`.

        `lengths` gets the length of each. `more` then tells whether some may be left that the socket knows nothing of.

        Raises:
            PipelineError: the link is gone, or the server ended the stream, with its reason.
        """
        note, get = lengths.append, self._pgconn.get_copy_data
        full = len(data) + max_bytes
        try:
            # What is left goes first: libpq's buffer grows for what does not fit, and would take in the whole stream.
            if not self.more:
                self._pgconn.consume_input()
            self.more = True
            for _ in range(max_frames):
                length, frame = get(1)
                if length <= 0:
                    if length < 0:
                        raise self._ended()
                    self.more = False
                    break
                data += frame
                note(length)
                if len(data) >= full:
                    break
        except psycopg.Error as error:
            raise self._ended(str(error)) from error

    def send(self, message: bytes) -> None:
        """Queue a message and send what the socket takes; `unsent` tells whether some is left.

        Raises:
            PipelineError: the link is gone.
        """
        try:
            self._pgconn.put_copy_data(message)
        except psycopg.Error as error:
            raise self._ended(str(error)) from error
        self.flush()

    def flush(self) -> None:
        """Send what is left, as far as the socket takes it.

        Raises:
            PipelineError: the link is gone.
        """
        try:
            self.unsent = bool(self._pgconn.flush())
        except psycopg.Error as error:
            raise self._ended(str(error)) from error

    def broken_by(self) -> str:
        """Return what the kernel says of a socket that is no longer good, once; `closed by the server` if nothing."""
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return os.strerror(number).lower() if number else "closed by the server"

    def close(self) -> None:
        """End the session; the slot is free as soon as the server notices."""
        self._socket.close()
        self._pgconn.finish()

    def _is_standby(self) -> bool:
        return self._execute("SELECT pg_is_in_recovery()").get_value(0, 0) == b"t"

    def _grow_buffer(self) -> None:
        self._execute(f"SELECT repeat(' ', {_ROW_BYTES})")

    def _execute(self, command: str, expect: int = pq.ExecStatus.TUPLES_OK) -> PGresult:
        try:
            result = self._pgconn.exec_(command.encode())
        except psycopg.Error as error:
            raise error_of(None, str(error)) from error
        if result.status != expect:
            raise result_error(result, slot=self._slot)
        return result

    def _ended(self, text: str = "the stream ended") -> PipelineError:
        # After an error the server's reason is in the result that follows; a link that broke has none.
        if self._pgconn.status != pq.ConnStatus.OK:
            return error_of(None, text)
        result = self._pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            return result_error(result, slot=self._slot, publication=self._publication)
        return error_of(None, text)


def open_link(dsn: str, slot: str, publication: str, **extra: str) -> Link:
    """Connect for replication; `extra` are parameters of libpq that win over the DSN's.

    Raises:
        PipelineError: no answer, or the login is refused.
    """
    return Link(connect_replication(dsn, **extra), slot, publication)
