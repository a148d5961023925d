"""Prometheus metrics in a separate registry; no label contains an id, a user or a path of a client."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from session_core.calls import CallEnd, failure_of

if TYPE_CHECKING:
    from session_core import Event, SessionStats

__all__ = ("CONTENT_TYPE", "Metrics", "render_all")

CONTENT_TYPE: Final = "text/plain; version=0.0.4"
_SHARED: Final = "PROMETHEUS_MULTIPROC_DIR"
_REQUESTS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_CALLS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """The metrics of one application, and its `CallObserver`."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("http_requests_total", "Requests answered.", labels, registry=registry)
        self._seconds = Histogram(
            "http_request_seconds", "Time to answer.", ("method", "route"), buckets=_REQUESTS, registry=registry
        )
        self._events = Counter("session_events_total", "What happened to sessions.", ("event",), registry=registry)
        self._calls = {
            kind: Histogram(f"{kind}_call_seconds", f"Time of calls to the {what}.", ("call",), buckets=_CALLS, registry=registry)
            for kind, what in _KINDS.items()
        }
        self._failures = {
            kind: Counter(f"{kind}_failures_total", f"Calls to the {what} that failed.", ("call",), registry=registry)
            for kind, what in _KINDS.items()
        }
        self._observe: dict[str, Callable[[float], None]] = {}
        self._live = Gauge(
            "sessions_live",
            "Sessions in the store, when last counted.",
            ("kind",),
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._audit_queue = Gauge(
            "audit_queue_entries", "Audit entries not written yet.", registry=registry, multiprocess_mode="livesum"
        )
        self._audit_lost = Gauge(
            "audit_entries_lost", "Audit entries not kept since start.", registry=registry, multiprocess_mode="sum"
        )
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def happened(self, event: Event) -> None:
        """Count an event of the session layer; an event listener for `SessionConfig`."""
        self._events.labels(event.name).inc()

    def begin(self, name: str) -> CallEnd:
        """Measure a call; see `CallObserver.begin`."""
        observe = self._observe.get(name)
        kind, _, call = name.partition(".")
        if observe is None:
            observe = self._observe[name] = self._calls[kind].labels(call).observe
        began = perf_counter()

        def end(error: BaseException | None) -> None:
            observe(perf_counter() - began)
            if error is not None and failure_of(error) is not None:
                self._failures[kind].labels(call).inc()

        return end

    def counted(self, stats: SessionStats) -> None:
        """Set the number of sessions."""
        self._live.labels("logged_in").set(stats.logged_in)
        self._live.labels("anonymous").set(stats.anonymous)

    def audit_waits(self, entries: int) -> None:
        """Set the number of audit entries not yet written."""
        self._audit_queue.set(entries)

    def audit_lost(self) -> None:
        """Count a lost audit entry."""
        self._audit_lost.inc()

    def render(self) -> bytes:
        """Return the exposition text: of all workers when `serve` runs several."""
        return generate_latest(_of_all_workers() if _SHARED in os.environ else self._registry)


_KINDS: Final = {"store": "session store", "provider": "identity provider", "tokens": "provider and the store for one refresh"}


def render_all() -> bytes:
    """Return the exposition text of all workers; `PROMETHEUS_MULTIPROC_DIR` must be set."""
    return generate_latest(_of_all_workers())


def _of_all_workers() -> CollectorRegistry:
    together = CollectorRegistry()
    MultiProcessCollector(together)  # type: ignore[no-untyped-call]
    return together
