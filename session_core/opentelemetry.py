"""OpenTelemetry spans for calls to the store and to a provider, without ids and tokens; needs the extra `telemetry`.

SessionConfig(AppSession, observers=[OpenTelemetryCalls()])
"""

from __future__ import annotations

from session_core.calls import CallEnd, failure_of
from session_core.extras import extra

with extra("telemetry", "opentelemetry", wanted="session_core.opentelemetry"):
    from opentelemetry import context, trace

__all__ = ("OpenTelemetryCalls",)


class OpenTelemetryCalls:
    """A span for each call, below the current span; uses the global tracer provider by default."""

    def __init__(self, tracer_provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("session_core", tracer_provider=tracer_provider)

    def begin(self, name: str) -> CallEnd:
        """See `CallObserver.begin`."""
        kind = trace.SpanKind.INTERNAL if name == "tokens.refresh" else trace.SpanKind.CLIENT
        span = self._tracer.start_span(name, kind=kind)
        token = context.attach(trace.set_span_in_context(span))

        def end(error: BaseException | None) -> None:
            context.detach(token)
            failure = failure_of(error)
            if failure is not None:
                span.set_attribute("error.type", failure)
                span.set_status(trace.StatusCode.ERROR)
            span.end()

        return end
