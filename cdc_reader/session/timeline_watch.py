"""A session that streams from a standby -> has the server changed its timeline meanwhile, and which session saw it.

Edge: a second replication connection, in a thread. When a standby is promoted or its primary is replaced, its walsender
continues: what it then sends is of a new timeline, in the same slot. This cannot be proved afterwards. So the session
watches the server: while it holds the slot, the slot continues in the history that the server writes.

Source: https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-IDENTIFY-SYSTEM
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from outhaul.cdc_reader.postgres.connect import open_stream
from outhaul.sink.errors import PipelineError

if TYPE_CHECKING:
    from outhaul.cdc_reader.postgres.slot import Link
    from outhaul.sink.position import History
    from outhaul.sink.settings import Stream

log = structlog.get_logger("outhaul.reader")

_CHECK_S = 1.0


class TimelineWatch:
    """Watches the timeline during a session on a standby; a primary keeps its timeline, so it is not watched.

    `witness` is the owner of the session that held its slot during the latest change, and the history after the change.
    It is kept until the next change, since recovery may need more than one attempt.
    """

    def __init__(self, stream: Stream) -> None:
        """Start without a session."""
        self.witness: tuple[str, History] | None = None
        self.has_changed = False
        self._stream = stream
        self._over = threading.Event()

    def begin(self, pid: int, history: History, owner: str) -> None:
        """Start to watch for a session.

        Args:
            pid: process of Postgres that streams to it.
            history: history that the server wrote when the session began.
            owner: random name of the session.
        """
        self.end()
        self.has_changed = False
        if history.of_standby:
            self._over = threading.Event()
            arguments = (self._over, pid, history, owner)
            threading.Thread(target=self._run, args=arguments, name="outhaul-timeline", daemon=True).start()

    def end(self) -> None:
        """Stop watching; the session is over."""
        self._over.set()

    def _run(self, over: threading.Event, pid: int, history: History, owner: str) -> None:
        link: Link | None = None
        while not over.wait(_CHECK_S):
            try:
                link = link or open_stream(self._stream)
                if (found := link.identify()) == history:
                    continue
                # Asked after the history: the session that holds the slot now also held it when the history changed.
                saw_it = link.holder() == pid
            except PipelineError:
                # The session has the same problem with the server, and logs it.
                if link is not None:
                    link.close()
                link = None
                continue
            self._note(over, (owner, found) if saw_it else None, history, found)
            break
        if link is not None:
            link.close()

    def _note(
        self, over: threading.Event, witness: tuple[str, History] | None, before: History, found: History
    ) -> None:
        if over.is_set():
            return
        self.witness = witness or self.witness
        self.has_changed = True
        log.warning(
            "timeline_changed",
            slot=self._stream.slot,
            before=before.timeline,
            timeline=found.timeline,
            promoted=not found.of_standby,
        )
