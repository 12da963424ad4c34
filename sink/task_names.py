"""Nothing -> the names of outhaul's Celery tasks.

Pure. The senders, the worker and the check of received messages share these names.
"""

from __future__ import annotations

WRITE_BATCH = "outhaul.write_batch"
RETRY_LETTERS = "outhaul.retry_letters"
PRUNE = "outhaul.prune"
PROBE = "outhaul.probe"
ALL_TASKS = frozenset({WRITE_BATCH, RETRY_LETTERS, PRUNE, PROBE})
