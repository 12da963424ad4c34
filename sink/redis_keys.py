"""Source, fence, batch -> the names of their keys in Redis.

Pure. The hash tag of every key is the name of its source, so a Redis cluster keeps all keys of a source on one node.

Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags
"""

from __future__ import annotations

# In `pulse_key`, in the place of a worker's name: any worker.
ANY_WORKER = "any"


def payload_key(source: str, token: str) -> str:
    """Return the Redis key of a batch's payload."""
    return f"outhaul:{{{source}}}:payload:{token}"


def stored_key(fence: str, epoch: int) -> str:
    """Return the Redis list on which the sink reports to the owner of one epoch."""
    return f"{_tagged(fence)}:stored:{epoch}"


def alive_key(source: str, token: str) -> str:
    """Return the Redis key that a task renews while it works on a batch; it expires if the worker is dead or frozen."""
    return f"outhaul:{{{source}}}:alive:{token}"


def pulse_key(source: str, worker: str) -> str:
    """Return the Redis key that a worker renews while it runs a task; `worker` is its name in Celery."""
    return f"outhaul:{{{source}}}:pulse:{worker}"


def epoch_key(fence: str) -> str:
    """Return the Redis key that mirrors the current epoch; if it is absent, Redis has lost its data."""
    return f"{_tagged(fence)}:epoch"


def reader_key(fence: str) -> str:
    """Return the Redis key in which the reader publishes its state for `outhaul status`."""
    return f"{_tagged(fence)}:reader"


def standby_key(fence: str) -> str:
    """Return the Redis key in which a standby reader reports that it waits for the slot, for `outhaul status`."""
    return f"{_tagged(fence)}:standby"


def reconnecting_key(fence: str) -> str:
    """Return the Redis key in which a reader without a session reports why, for `outhaul status`."""
    return f"{_tagged(fence)}:reconnecting"


def pause_known_key(fence: str) -> str:
    """Return the Redis key that exists while the reader knows the newest pause request; if absent, the reader asks."""
    return f"{_tagged(fence)}:pause_heard"


def _tagged(fence: str) -> str:
    # The hash tag is the source in every lane: all keys of one command must be on one node of a Redis cluster.
    source, slash, lane = fence.partition("/")
    return f"outhaul:{{{source}}}{slash}{lane}"


def celery_prefix(source: str) -> str:
    """Return the prefix of Celery's own keys; in a Redis cluster it puts them on the node of outhaul's keys.

    Without it, other Celery apps and other pipelines would have the same keys for messages that are not acknowledged.
    Their workers would deliver them again after the visibility timeout of the wrong app.
    """
    return f"outhaul:{{{source}}}:celery:"


def failures_key(source: str) -> str:
    """Return the Redis hash of the latest failure of each process, for `outhaul status`."""
    return f"outhaul:{{{source}}}:failures"


def probe_key(source: str, run: str) -> str:
    """Return the Redis list on which a worker answers the probe of one `outhaul doctor`."""
    return f"outhaul:{{{source}}}:probe:{run}"


def letters_key(source: str, run: str) -> str:
    """Return the Redis list on which the sink reports the outcome of each dead letter of one retry."""
    return f"outhaul:{{{source}}}:letters:{run}"
