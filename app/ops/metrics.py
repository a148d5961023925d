"""Numbers for Prometheus, in a registry of our own; no label ever holds an id, a user or a path that a client chose."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from session_core import Event

__all__ = ("CONTENT_TYPE", "Metrics")

CONTENT_TYPE = "text/plain; version=0.0.4"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("http_requests_total", "Requests answered.", labels, registry=self._registry)
        self._seconds = Histogram(
            "http_request_seconds", "Time to answer.", ("method", "route"), buckets=_BUCKETS, registry=self._registry
        )
        self._events = Counter("session_events_total", "What happened to sessions.", ("event",), registry=self._registry)
        self._audit_lost = Gauge(
            "audit_entries_lost",
            "Audit entries not kept since start.",
            registry=self._registry,
            multiprocess_mode="sum",
        )
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def happened(self, event: Event) -> None:
        """Count an event of the session layer; an event listener for `SessionConfig`."""
        self._events.labels(event.name).inc()

    def render(self, *, audit_lost: int) -> bytes:
        """Return the exposition text: of all workers when `serve` runs several."""
        self._audit_lost.set(audit_lost)
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            together = CollectorRegistry()
            MultiProcessCollector(together)  # type: ignore[no-untyped-call]
            return generate_latest(together)
        return generate_latest(self._registry)
