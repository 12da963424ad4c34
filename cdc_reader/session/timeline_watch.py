"""A session that streams from a standby -> whether the server has come to another timeline under it, and who saw that.

Edge: a connection for replication of its own, in a thread. A walsender on a standby goes on when that is promoted, or
when its primary is replaced; what it sends then is of a new timeline, in the same slot. Nobody can prove that later.
So the session looks: while it has the slot, whatever history its server writes is the one that the slot goes on in.

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

_LOOK_S = 1.0


class TimelineWatch:
    """Looks as long as a session lasts; has nothing to do where that is of a primary, which keeps its timeline.

    `witness` is the owner of the session that saw the latest change and kept its slot over it, and what it changed to.
    It stands until there is another: whoever recovers may have to try more than once.
    """

    def __init__(self, stream: Stream) -> None:
        """Look at nothing yet."""
        self.witness: tuple[str, History] | None = None
        self.has_changed = False
        self._stream = stream
        self._over = threading.Event()

    def begin(self, pid: int, history: History, owner: str) -> None:
        """Look after a session.

        Args:
            pid: process of Postgres that streams to it.
            history: what the server wrote when the session began.
            owner: random name of the session.
        """
        self.end()
        self.has_changed = False
        if history.of_standby:
            self._over = threading.Event()
            arguments = (self._over, pid, history, owner)
            threading.Thread(target=self._run, args=arguments, name="outhaul-timeline", daemon=True).start()

    def end(self) -> None:
        """Look no more; the session is over."""
        self._over.set()

    def _run(self, over: threading.Event, pid: int, history: History, owner: str) -> None:
        link: Link | None = None
        while not over.wait(_LOOK_S):
            try:
                link = link or open_stream(self._stream)
                if (found := link.identify()) == history:
                    continue
                # Asked second: whoever has the slot now had it when the server came to this history.
                saw_it = link.holder() == pid
            except PipelineError:
                # What keeps this connection from the server is the session's trouble, too, which says so.
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
