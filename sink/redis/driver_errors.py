"""Exception of redis-py -> `PipelineError`, by the code of the server's answer or the class of the exception.

Pure. It translates; the caller's block does the I/O.

Source: https://redis.readthedocs.io/en/stable/exceptions.html
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import redis

from outhaul.sink import redis_url, tls
from outhaul.sink.errors import Exit, FatalError, TransientError
from outhaul.sink.redis.discovery import ElsewhereError, NoPlaceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_UNKNOWN_COMMAND = re.compile(r"unknown command\W*(\w+)", re.IGNORECASE)
# The first commands that a server receives; a Sentinel knows none of them.
_STORES_KEYS = {"SET", "GETRANGE"}


@contextmanager
def translated() -> Iterator[None]:
    """Translate exceptions of redis-py that leave the block.

    Raises:
        TransientError: Redis does not answer, or refuses the command for now.
        FatalError: Redis would refuse every repetition.
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
            todo="Raise maxmemory or free memory; the payloads need the memory of about max_in_flight batches",
            exit_code=Exit.REDIS_FULL,
        ) from error
    except redis.ReadOnlyError as error:
        raise TransientError(
            "Redis is read-only", todo="Point OUTHAUL_REDIS_URL at the primary", exit_code=Exit.REDIS_READ_ONLY
        ) from error
    except NoPlaceError as error:
        raise FatalError(
            f"Redis: {error}",
            todo="Name the Sentinels and the primary's name in them, or nodes of the cluster, in OUTHAUL_REDIS_URL",
            exit_code=Exit.SETTINGS,
        ) from error
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        if (why := tls.why_refused(error)) is not None:
            raise tls.refusal("Redis", why, redis_url.EXAMPLE) from error
        reason = str(error) if isinstance(error, ElsewhereError) else type(error).__name__
        raise TransientError(
            f"Redis does not answer ({reason})",
            todo="Check that it runs and that OUTHAUL_REDIS_URL reaches it",
            exit_code=Exit.REDIS_UNREACHABLE,
        ) from error
    except (redis.exceptions.AskError, redis.exceptions.ClusterCrossSlotError) as error:
        raise cluster_node_error(str(error)) from error
    except redis.ResponseError as error:
        unknown = _UNKNOWN_COMMAND.match(str(error))
        if unknown is None:
            raise TransientError(f"Redis refuses: {error}", exit_code=Exit.REDIS_UNREACHABLE) from error
        if (name := unknown[1].upper()) not in _STORES_KEYS:
            raise missing_commands([name]) from error
        raise FatalError(
            f"OUTHAUL_REDIS_URL leads to a server that stores no keys, perhaps a Sentinel ({error})",
            todo=f"If it is a Sentinel, write {redis_url.SENTINEL_EXAMPLE}",
            exit_code=Exit.SETTINGS,
        ) from error
    except redis.RedisError as error:
        # LOADING, MISCONF, CLUSTERDOWN and others: states of the server that can end. Waiting loses no event, since
        # Redis only transports batches.
        raise TransientError(f"Redis refuses: {error}", exit_code=Exit.REDIS_UNREACHABLE) from error


def missing_commands(names: Sequence[str]) -> FatalError:
    """Return the error for a server that does not have these commands."""
    return FatalError(
        f"Redis does not have the command {', '.join(names)}, which outhaul or Celery needs",
        todo="Remove its `rename-command` from Redis' configuration; to keep it from other users, use ACLs",
        exit_code=Exit.REDIS_REFUSED,
    )


def cluster_node_error(reason: str) -> FatalError:
    """Return the error for an address that names one server, which is a node of a cluster."""
    return FatalError(
        f"OUTHAUL_REDIS_URL leads to a node of a cluster, but does not name a cluster ({reason})",
        todo=f"Write {redis_url.CLUSTER_EXAMPLE}",
        exit_code=Exit.SETTINGS,
    )
