"""Replication slot -> frames in the order of arrival; positions and replies -> the slot.

Edge: libpq, through psycopg's PGconn, in COPY BOTH mode. libpq does TLS, SCRAM and DSNs with several hosts. No function
waits for the socket except `open_link` and the commands before the stream: the loop waits for it, and this file reads
and writes what is possible at once.

Source: https://www.postgresql.org/docs/current/protocol-replication.html
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq

from outhaul.cdc_reader.postgres.errors import UnsupportedBinary, error_of, result_error
from outhaul.cdc_reader.postgres.login import connect_replication
from outhaul.cdc_reader.postgres.receive_buffer import Window
from outhaul.cdc_reader.postgres.timelines import parse
from outhaul.sink.errors import Exit
from outhaul.sink.position import History, Lsn
from outhaul.sink.quoting import postgres_identifier, postgres_literal

if TYPE_CHECKING:
    from array import array

    from psycopg.pq.abc import PGconn, PGresult

    from outhaul.sink.errors import PipelineError

# libpq reads at most the free part of its buffer at once, 16 KiB at first. It enlarges the buffer for a large row, and
# never shrinks it.
_BUFFER_BYTES = 1 << 20
_ROW_BYTES = _BUFFER_BYTES - 1024


class Link:
    """One walsender session; its process owns the slot as long as the session lasts."""

    def __init__(self, pgconn: PGconn, slot: str, publication: str) -> None:
        """Wrap an open replication connection."""
        self._pgconn = pgconn
        self._slot = slot
        self._publication = publication
        self._binary = False
        # A second descriptor of the same socket, since libpq has no function for socket options.
        self._socket = socket.socket(fileno=os.dup(pgconn.socket))
        # Before the first large query: the kernel must have the room that it has promised to the server.
        self.window = Window(self._socket)
        self.more = False
        self.unsent = False

    def fileno(self) -> int:
        """Return the descriptor of the socket, for a selector."""
        return self._pgconn.socket

    def identify(self) -> History:
        """Return the history that this server writes.

        Raises:
            PipelineError: the server refuses or does not answer.
        """
        of_standby = self._is_standby()
        while True:
            result = self._execute("IDENTIFY_SYSTEM")
            system, timeline = result.get_value(0, 0), result.get_value(0, 1)
            # A promotion between two answers would mix two histories.
            was, of_standby = of_standby, self._is_standby()
            if was == of_standby:
                return History((system or b"").decode(), int(timeline or b"0"), of_standby)

    def holder(self) -> int | None:
        """Return the process that streams from the slot, as this server sees it; None if no process does.

        Raises:
            PipelineError: the server refuses or does not answer.
        """
        name = postgres_literal(self._slot)
        result = self._execute(f"SELECT active_pid FROM pg_replication_slots WHERE slot_name = {name}")  # noqa: S608
        pid = result.get_value(0, 0) if result.ntuples else None
        return int(pid) if pid else None

    @property
    def pid(self) -> int:
        """Number of the Postgres process at the other end."""
        return self._pgconn.backend_pid

    def ancestors(self, timeline: int) -> dict[int, Lsn]:
        """Return where each earlier timeline ended; empty if the server no longer has the history file.

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
        """Take the slot and start the stream at its confirmed position; `binary` asks for values in binary form.

        Raises:
            SlotHeldError: another session has the slot.
            PipelineError: the server refuses or does not answer.
        """
        self._binary = binary
        self._grow_buffer()
        # A list of identifiers in a literal.
        names = postgres_literal(postgres_identifier(self._publication))
        options = f"proto_version '1', publication_names {names}, messages 'true'"
        options += ", binary 'true'" if binary else ""
        slot = postgres_identifier(self._slot)
        self._execute(f"START_REPLICATION SLOT {slot} LOGICAL 0/0 ({options})", expect=pq.ExecStatus.COPY_BOTH)
        self._pgconn.nonblocking = 1

    def read(self, data: bytearray, lengths: array[int], max_bytes: int, max_frames: int) -> None:
        """Append the frames that have arrived to `data`, in order; stop at `max_frames`, or past `max_bytes`.

        Append the length of each frame to `lengths`. Then `more` is whether libpq's buffer may have further frames,
        which do not make the socket readable.

        Raises:
            UnsupportedBinary: a type's send function may have failed, for instance that of an array whose elements have
                no binary form.
            PipelineError: the link is broken, or the server ended the stream; the error has the server's reason.
        """
        note, get = lengths.append, self._pgconn.get_copy_data
        full = len(data) + max_bytes
        try:
            # Take the buffered frames first: otherwise libpq would enlarge its buffer until it holds the whole stream.
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
        """Queue a message and send what the socket accepts; `unsent` is whether bytes are left.

        Raises:
            PipelineError: the link is broken.
        """
        try:
            self._pgconn.put_copy_data(message)
        except psycopg.Error as error:
            raise self._ended(str(error)) from error
        self.flush()

    def flush(self) -> None:
        """Send queued bytes, as far as the socket accepts them.

        Raises:
            PipelineError: the link is broken.
        """
        try:
            self.unsent = bool(self._pgconn.flush())
        except psycopg.Error as error:
            raise self._ended(str(error)) from error

    def broken_by(self) -> str:
        """Return the kernel's error of a broken socket, or `closed by the server`; the kernel reports it once."""
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return os.strerror(number).lower() if number else "closed by the server"

    def close(self) -> None:
        """End the session; the slot is free when the server has noticed it."""
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
        # After an error, the next result has the server's reason; on a broken link no result follows.
        if self._pgconn.status != pq.ConnStatus.OK:
            return error_of(None, text)
        result = self._pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            error = result_error(result, slot=self._slot, publication=self._publication)
            if self._binary and error.exit_code is Exit.STREAM_BROKEN:
                return UnsupportedBinary(f"the server ended the stream in binary form: {error.message}")
            return error
        return error_of(None, text)


def open_link(dsn: str, slot: str, publication: str, **extra: str) -> Link:
    """Connect for replication; `extra` are parameters of libpq that win over the DSN's.

    Raises:
        PipelineError: no answer, or the login is refused.
    """
    return Link(connect_replication(dsn, **extra), slot, publication)
