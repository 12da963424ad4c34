"""The tracing library of this process -> the W3C traceparent of the active span, or None.

Edge: reads sentry_sdk and OpenTelemetry if the app has imported them. This file imports neither.

Source: https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

import sys

from outhaul.event import is_traceparent


def running_traceparent() -> str | None:
    """Return the traceparent of Sentry's active span, else of OpenTelemetry's, else None.

    Source: https://www.w3.org/TR/trace-context/#traceparent-header
    """
    return next(filter(is_traceparent, (_from_sentry(), _from_opentelemetry())), None)


def _from_sentry() -> str | None:
    sentry_sdk = sys.modules.get("sentry_sdk")
    span = sentry_sdk.get_current_span() if sentry_sdk and hasattr(sentry_sdk, "get_current_span") else None
    # Not every kind of span has these attributes.
    trace_id, span_id = getattr(span, "trace_id", None), getattr(span, "span_id", None)
    return f"00-{trace_id}-{span_id}-{'01' if getattr(span, 'sampled', None) else '00'}"


def _from_opentelemetry() -> str | None:
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 0xFF:02x}"
