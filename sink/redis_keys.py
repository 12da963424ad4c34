"""Source, fence, batch -> the keys under which Redis has them.

Pure. All keys of a source have its name as their hash tag: in a Redis cluster they lie in one place.
"""

from __future__ import annotations

# Stands for any worker where a key has a worker's name.
ANY = "any"


def payload_key(source: str, token: str) -> str:
    """Return the Redis key under which a batch's payload waits."""
    return f"outhaul:{{{source}}}:payload:{token}"


def stored_key(fence: str, epoch: int) -> str:
    """Return the Redis list on which the sink reports to the owner of one epoch."""
    return f"{_tagged(fence)}:stored:{epoch}"


def alive_key(source: str, token: str) -> str:
    """Return the Redis key that a task renews while it works on a batch; expired, its worker is dead or asleep."""
    return f"outhaul:{{{source}}}:alive:{token}"


def pulse_key(source: str, worker: str) -> str:
    """Return the Redis key that a worker renews while it runs a task; `worker` is Celery's name of it."""
    return f"outhaul:{{{source}}}:pulse:{worker}"


def epoch_key(fence: str) -> str:
    """Return the Redis key that mirrors the current epoch; its absence means Redis lost its data."""
    return f"{_tagged(fence)}:epoch"


def reader_key(fence: str) -> str:
    """Return the Redis key under which the reader publishes what `outhaul status` shows."""
    return f"{_tagged(fence)}:reader"


def standby_key(fence: str) -> str:
    """Return the Redis key under which a reader that waits for the slot says so, for `outhaul status`."""
    return f"{_tagged(fence)}:standby"


def reconnecting_key(fence: str) -> str:
    """Return the Redis key under which a reader without a session says why, for `outhaul status`."""
    return f"{_tagged(fence)}:reconnecting"


def heard_key(fence: str) -> str:
    """Return the Redis key that says that the reader knows the newest word about pausing; absent, it has to ask."""
    return f"{_tagged(fence)}:pause_heard"


def _tagged(fence: str) -> str:
    # The hash tag is the source's in both lanes: what one command names must be in one place of a Redis cluster.
    source, slash, lane = fence.partition("/")
    return f"outhaul:{{{source}}}{slash}{lane}"


def celery_prefix(source: str) -> str:
    """Return what stands before the names of Celery's own keys in a Redis cluster, where they must lie beside ours."""
    return f"outhaul:{{{source}}}:celery:"


def letters_key(source: str, run: str) -> str:
    """Return the Redis list on which the sink says what became of the dead letters of one retry."""
    return f"outhaul:{{{source}}}:letters:{run}"
