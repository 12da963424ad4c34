"""Error, at a place that knows what it means -> an event in Sentry, or nothing.

Edge: sentry-sdk. What stops a process is told at once; what is repeated until it works only when it has lasted, as a
warning; each kind seldom (sink/telemetry/sentry/repeated_errors.py). A kind is class, code and process, and one kind is
one issue.

Source: https://docs.sentry.io/platforms/python/usage/sdk-fingerprinting/
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from outhaul.sink.errors import PipelineError, TransientError
from outhaul.sink.telemetry import log_context

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal

    from outhaul.sink.telemetry.sentry.repeated_errors import Patience

# How long a process that ends waits for Sentry, in seconds.
_FLUSH_S = 2.0

_process = ""
_patience: Patience | None = None


def begin(process: str, patience: Patience) -> None:
    """Start to tell of errors of this process."""
    global _process, _patience
    _process, _patience = process, patience


def is_on() -> bool:
    """Tell whether this process has a client."""
    return _patience is not None


def stopped(error: BaseException) -> None:
    """Tell of an error that needs an operator, or that nobody expected."""
    _tell(error, "error", at_once=True)


def repeated(error: BaseException) -> None:
    """Note an error after which the same is tried again; tell of it when that has lasted."""
    _tell(error, "warning", at_once=False)


def told(error: BaseException) -> None:
    """Tell of an error after which something goes on by itself: a server that is away has to be so for a while."""
    (repeated if isinstance(error, TransientError) else stopped)(error)


def set_aside(error: PipelineError, rows: int) -> None:
    """Tell that ClickHouse refused some rows, which are dead letters now."""
    _tell(error, "warning", at_once=True, rows=rows)


def over() -> None:
    """Note that what was repeated works now."""
    if _patience is not None:
        _patience.over()


def flush() -> None:
    """Wait until what was told has left, for two seconds at most."""
    if _patience is not None:
        import sentry_sdk

        sentry_sdk.flush(_FLUSH_S)


@contextmanager
def stopping() -> Iterator[None]:
    """Tell of the error that ends the block; a server that is away is a warning, since a supervisor starts again."""
    try:
        yield
    except PipelineError as error:
        _tell(error, "warning" if isinstance(error, TransientError) else "error", at_once=True)
        raise
    finally:
        flush()


def _tell(error: BaseException, level: Literal["warning", "error"], *, at_once: bool, rows: int = 0) -> None:
    if _patience is None:
        return
    import sentry_sdk

    kind = fingerprint(error)
    telling = _patience.note(tuple(kind), at_once=at_once)
    if telling is None:
        return
    with sentry_sdk.new_scope() as scope:
        scope.set_level(level)
        scope.fingerprint = kind
        for name, value in tags(error).items():
            scope.set_tag(f"outhaul.{name}", value)
        numbers = {"times": telling.times, "lasting_s": round(telling.lasting_s, 1)} | ({"rows": rows} if rows else {})
        scope.set_context("outhaul", numbers)
        sentry_sdk.capture_exception(error)


def fingerprint(error: BaseException) -> list[str]:
    """Return what makes two errors one issue."""
    code = getattr(error, "code", None)
    return [type(error).__name__, f"code {code}" if code is not None else _exit(error), _process]


def tags(error: BaseException) -> dict[str, str]:
    """Return what is known of an error and of the batch at hand."""
    found = {name: str(value) for name, value in log_context.known().items()}
    code = getattr(error, "code", None)
    return found | ({"code": str(code)} if code is not None else {}) | {"exit_code": _exit(error)}


def _exit(error: BaseException) -> str:
    return str(int(getattr(error, "exit_code", 1)))
