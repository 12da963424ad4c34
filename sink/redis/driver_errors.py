"""redis-py's errors -> ours: by the code of the server's answer, or by the kind of what went wrong on the way.

Source: https://redis.readthedocs.io/en/stable/exceptions.html
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import redis

from outhaul.sink import redis_url, tls
from outhaul.sink.errors import Exit, FatalError, TransientError
from outhaul.sink.redis.discovery import ElsewhereError, NoPlaceError

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNKNOWN_COMMAND = "unknown command"


@contextmanager
def translated() -> Iterator[None]:
    """Raise what redis-py raises as an error of ours.

    Raises:
        TransientError: Redis does not answer, or does not take it now.
        FatalError: it never will.
    """
    try:
        yield
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise FatalError(
            f"Redis refuses the login: {str(error).rstrip('.')}",
            todo="Check user, password and ACL in OUTHAUL_REDIS_URL",
            exit_code=Exit.REDIS_LOGIN,
        ) from error
    except redis.exceptions.OutOfMemoryError as error:
        raise TransientError(
            "Redis is full (maxmemory reached)",
            todo="Raise maxmemory or free memory; payloads need about max_in_flight batches",
            exit_code=Exit.REDIS_FULL,
        ) from error
    except redis.ReadOnlyError as error:
        raise TransientError(
            "Redis is read-only", todo="Point OUTHAUL_REDIS_URL at the primary", exit_code=Exit.REDIS_READ_ONLY
        ) from error
    except NoPlaceError as error:
        raise FatalError(
            f"Redis: {error}",
            todo="Name the Sentinels and their name of the primary, or nodes of the cluster, in OUTHAUL_REDIS_URL",
            exit_code=Exit.SETTINGS,
        ) from error
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        if (why := tls.why_refused(error)) is not None:
            raise tls.refusal("Redis", why, redis_url.EXAMPLE) from error
        said = str(error) if isinstance(error, ElsewhereError) else type(error).__name__
        raise TransientError(
            f"Redis does not answer ({said})",
            todo="Check that it runs and that OUTHAUL_REDIS_URL reaches it",
            exit_code=Exit.REDIS_UNREACHABLE,
        ) from error
    except (redis.exceptions.AskError, redis.exceptions.ClusterCrossSlotError) as error:
        raise of_a_cluster(str(error)) from error
    except redis.ResponseError as error:
        if not str(error).lower().startswith(_UNKNOWN_COMMAND):
            raise TransientError(f"Redis refuses: {error}", exit_code=Exit.REDIS_UNREACHABLE) from error
        raise FatalError(
            f"OUTHAUL_REDIS_URL leads to a server that keeps no keys, a Sentinel perhaps ({error})",
            todo=f"If it is one, write {redis_url.SENTINEL_EXAMPLE}",
            exit_code=Exit.SETTINGS,
        ) from error
    except redis.RedisError as error:
        # LOADING, MISCONF, CLUSTERDOWN and the like: states of the server, and Redis is only the way, not the store.
        raise TransientError(f"Redis refuses: {error}", exit_code=Exit.REDIS_UNREACHABLE) from error


def of_a_cluster(sign: str) -> FatalError:
    """Return the error for a node of a cluster to which the address leads as if it were a server of its own."""
    return FatalError(
        f"OUTHAUL_REDIS_URL leads to a node of a cluster, and does not say so ({sign})",
        todo=f"Write {redis_url.CLUSTER_EXAMPLE}",
        exit_code=Exit.SETTINGS,
    )
