"""The running span's trace context goes along, whichever library made the span."""

from __future__ import annotations

import sentry_sdk
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from outhaul.traceparent import running_traceparent


def test_without_a_span_there_is_no_traceparent() -> None:
    assert running_traceparent() is None


def test_a_span_of_sentry_is_named() -> None:
    with sentry_sdk.isolation_scope(), sentry_sdk.start_span(op="test", name="test", sampled=True) as span:
        assert running_traceparent() == f"00-{span.trace_id}-{span.span_id}-01"


def test_a_span_of_opentelemetry_is_named() -> None:
    span = TracerProvider().get_tracer("test").start_span("test")
    with trace.use_span(span, end_on_exit=True):
        context = span.get_span_context()
        assert running_traceparent() == f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        assert context.trace_flags & 1
