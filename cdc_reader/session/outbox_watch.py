"""Changes of an outbox while a reader runs -> the error for which the reader would not start.

Edge: Postgres, in a thread. A child table, row-level security or another partition key may come at any time, and the
stream shows none of them: the events that it would miss or repeat are those that are committed afterwards.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from outhaul.cdc_reader.postgres.connect import connect_primary
from outhaul.cdc_reader.postgres.outbox_checks import check_outboxes
from outhaul.sink.errors import FatalError, PipelineError
from outhaul.sink.stopping import sleep_unless

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.sink.settings import Settings

_CHECK_S = 10.0


class OutboxWatch:
    """Looks at the catalogue every ten seconds until `error` is set; the reader ends with it."""

    def __init__(self, settings: Settings, stopping: Callable[[], bool]) -> None:
        """Start the thread."""
        self.error: FatalError | None = None
        self._settings = settings
        self._stopping = stopping
        threading.Thread(target=self._run, name="outhaul-outbox", daemon=True).start()

    def check(self) -> None:
        """Raise what was found.

        Raises:
            FatalError: events of an outbox would be missed or repeated.
        """
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        while self.error is None:
            sleep_unless(self._stopping, _CHECK_S)
            if self._stopping():
                return
            self._look()

    def _look(self) -> None:
        try:
            conn = connect_primary(self._settings)
        except PipelineError:
            # The session has the same problem with the server, and logs it.
            return
        with conn:
            try:
                check_outboxes(conn, [outbox.sql_table for outbox in self._settings.outboxes()])
            except FatalError as error:
                self.error = error
            except PipelineError:
                return
