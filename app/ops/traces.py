"""Traces by OpenTelemetry: a span for each request, and below it those of the library; needs the group `app-telemetry`.

No attribute contains an address, a query, an id or a token. The SDK's `OTEL_...` variables configure the exporter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from session_core.opentelemetry import OpenTelemetryCalls

__all__ = ("Traces",)

_FLUSH_SECONDS: Final = 1.0
_SERVER_ERROR: Final = 500
_CARRIED: Final = frozenset({b"traceparent", b"tracestate"})


class Traces:
    """The traces of one application. `processor` replaces the exporter, for tests."""

    def __init__(self, service: str, processor: SpanProcessor | None = None) -> None:
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.
        resource = Resource.create({"service.name": service}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(processor or BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("app")
        self._propagator = TraceContextTextMapPropagator()
        self.calls = OpenTelemetryCalls(self._provider)

    def begin(self, scope: Any, request_id: str) -> Callable[[str, str, int], None]:  # noqa: ANN401 - any ASGI scope
        """Begin the span of a request; the function that is returned ends it: method, route, status."""
        carried = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _CARRIED}
        parent = self._propagator.extract(carried)
        span = self._tracer.start_span("request", parent, kind=trace.SpanKind.SERVER, attributes={"request.id": request_id})
        token = context.attach(trace.set_span_in_context(span, parent))

        def end(method: str, route: str, status: int) -> None:
            context.detach(token)
            span.update_name(f"{method} {route}")
            span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status})
            if status >= _SERVER_ERROR:
                span.set_status(trace.StatusCode.ERROR)
            span.end()

        return end

    async def close(self) -> None:
        """Send waiting spans, for at most a second."""
        await asyncio.to_thread(self._provider.force_flush, round(_FLUSH_SECONDS * 1000))
