"""The names of the Celery tasks of outhaul, for who sends them, who runs them and who checks messages.

Pure.
"""

from __future__ import annotations

WRITE_BATCH = "outhaul.write_batch"
RETRY_LETTERS = "outhaul.retry_letters"
PRUNE = "outhaul.prune"
ALL_TASKS = frozenset({WRITE_BATCH, RETRY_LETTERS, PRUNE})
