"""Error, and the effect that it has on the process -> an event in Sentry, or nothing.

Edge: sentry-sdk. An error that stops a process is reported at once. An error that is retried is reported as a warning,
and only if it lasts. Errors of one kind are reported rarely (sink/telemetry/sentry/repeated_errors.py). Class, code and
process are the kind of an error, and each kind is one issue in Sentry.

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

    from outhaul.sink.telemetry.sentry.repeated_errors import Throttle

# How long a process that ends waits for Sentry, in seconds.
_FLUSH_S = 2.0

_process = ""
_throttle: Throttle | None = None


def begin(process: str, throttle: Throttle) -> None:
    """Start to report errors of this process."""
    global _process, _throttle
    _process, _throttle = process, throttle


def is_on() -> bool:
    """Tell whether this process has a client."""
    return _throttle is not None


def report_now(error: BaseException) -> None:
    """Report an error that needs an operator, or that is unexpected."""
    _send(error, "error", at_once=True)


def note_retry(error: BaseException) -> None:
    """Record an error after which the same operation is retried; report it if it lasts."""
    _send(error, "warning", at_once=False)


def report(error: BaseException) -> None:
    """Report an error after which the process continues; a transient error is reported only if it lasts."""
    (note_retry if isinstance(error, TransientError) else report_now)(error)


def report_set_aside(error: PipelineError, rows: int) -> None:
    """Report that ClickHouse refused some rows, which are dead letters now."""
    _send(error, "warning", at_once=True, rows=rows)


def recovered() -> None:
    """Record that retried operations succeed again."""
    if _throttle is not None:
        _throttle.recovered()


def flush() -> None:
    """Wait at most two seconds until all reports are sent."""
    if _throttle is not None:
        import sentry_sdk

        sentry_sdk.flush(_FLUSH_S)


@contextmanager
def reporting_exit() -> Iterator[None]:
    """Report the error that ends the block; a transient error is a warning, since a supervisor restarts the process."""
    try:
        yield
    except PipelineError as error:
        _send(error, "warning" if isinstance(error, TransientError) else "error", at_once=True)
        raise
    finally:
        flush()


def _send(error: BaseException, level: Literal["warning", "error"], *, at_once: bool, rows: int = 0) -> None:
    if _throttle is None:
        return
    import sentry_sdk

    kind = fingerprint(error)
    occurrences = _throttle.add(tuple(kind), at_once=at_once)
    if occurrences is None:
        return
    with sentry_sdk.new_scope() as scope:
        scope.set_level(level)
        scope.fingerprint = kind
        for name, value in tags(error).items():
            scope.set_tag(f"outhaul.{name}", value)
        numbers = {"times": occurrences.times, "lasting_s": round(occurrences.lasting_s, 1)}
        scope.set_context("outhaul", numbers | ({"rows": rows} if rows else {}))
        sentry_sdk.capture_exception(error)


def fingerprint(error: BaseException) -> list[str]:
    """Return the fingerprint of an error: errors with the same fingerprint are one issue."""
    code = getattr(error, "code", None)
    return [type(error).__name__, f"code {code}" if code is not None else _exit(error), _process]


def tags(error: BaseException) -> dict[str, str]:
    """Return the tags of an error: its codes, and the names of the current batch."""
    found = {name: str(value) for name, value in log_context.known().items()}
    code = getattr(error, "code", None)
    return found | ({"code": str(code)} if code is not None else {}) | {"exit_code": _exit(error)}


def _exit(error: BaseException) -> str:
    return str(int(getattr(error, "exit_code", 1)))
