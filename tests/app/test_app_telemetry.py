"""Telemetry of the application: request ids, latencies, counts and traces, without ids, tokens or user names."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Queue
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app import NAME
from app.ops.live_sessions import count_sessions
from app.ops.traces import Traces
from session_core import StoreUnavailableError
from tests.app.conftest import Running, Start

pytestmark = pytest.mark.anyio

KEY = "k" * 32


@pytest.mark.parametrize("given", ["a", "3fa85f64-5717-4562-b3fc-2c963f66afa6", "web.7_x-" + "0" * 56])
async def test_a_request_id_from_the_client_is_used(client: httpx.AsyncClient, given: str) -> None:
    for path in ("/api/session", "/nothing", "/health/live", "/auth/session"):
        assert (await client.get(path, headers={"x-request-id": given})).headers["x-request-id"] == given


async def test_a_malformed_request_id_is_replaced(client: httpx.AsyncClient) -> None:
    malformed: list[Any] = ["", "a b", "-a", "a\tb", "ä".encode(), "a" * 65, 'a"b', "a,b", "../x", "a\x7f", "a;b", "<b>"]
    for given in malformed:
        own = (await client.get("/health/live", headers={"x-request-id": given})).headers["x-request-id"]
        assert own != given
        assert len(own) == 16, given


async def test_two_request_ids_are_ignored(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health/live", headers=[("x-request-id", "one"), ("x-request-id", "two")])
    assert answer.headers.get_list("x-request-id") == [answer.headers["x-request-id"]]
    assert answer.headers["x-request-id"] not in {"one", "two", "one, two"}


async def test_the_request_id_is_in_problems_pages_and_logs(
    running: Running, client: httpx.AsyncClient, capfd: pytest.CaptureFixture[str]
) -> None:
    problem = await client.get("/api/me", headers={"x-request-id": "of-a-proxy"})
    assert problem.json()["request_id"] == "of-a-proxy"
    async with running.browser() as browser:
        page = await browser.get("/nothing")
    assert page.headers["x-request-id"] in page.text
    assert page.headers["x-request-id"] != (await client.get("/nothing")).headers["x-request-id"]
    async with running.browser() as browser:
        await browser.get("/auth/callback", headers={"x-request-id": "in-the-log"})
    assert any("in-the-log" in line and "login.failed" in line for line in capfd.readouterr().err.splitlines())


async def test_the_log_has_the_reason_of_an_outage_of_the_provider(
    client: httpx.AsyncClient, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (await client.get("/auth/login")).status_code == 503  # no provider runs in this test
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "error answered" in line]
    assert "reason=discovery_refused" in line


async def test_metrics_need_the_configured_key(start: Start) -> None:
    async with start(app_metrics_key=KEY) as running, running.client() as client:
        for authorization in (None, "", KEY, f"Basic {KEY}", f"Bearer {KEY}x", "Bearer ä".encode()):
            answer = await client.get("/metrics", headers={} if authorization is None else {"authorization": authorization})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert (await client.get("/metrics", headers={"authorization": f"Bearer {KEY}"})).status_code == 200


async def test_metrics_on_their_own_address_are_not_on_the_main_one(start: Start) -> None:
    async with start(app_metrics_address="127.0.0.1:9464") as running, running.client() as client:
        assert (await client.get("/metrics")).status_code == 404


async def test_store_latencies_and_failures_are_measured(
    running: Running, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.post("/api/session/visits")
    await client.get("/api/session")
    text = (await client.get("/metrics")).text
    assert 'store_call_seconds_count{call="load"} 1.0' in text
    assert 'store_call_seconds_count{call="create"}' in text
    assert "store_failures_total{" not in text

    async def out(*_: object) -> Any:
        raise StoreUnavailableError

    monkeypatch.setattr(running.plugin.store.inner, "load", out)
    assert (await client.get("/api/session")).status_code == 503
    assert 'store_failures_total{call="load"} 1.0' in (await client.get("/metrics")).text


async def test_provider_latencies_and_failures_are_measured(client: httpx.AsyncClient) -> None:
    await client.get("/auth/login")  # no provider runs in this test
    text = (await client.get("/metrics")).text
    assert 'provider_call_seconds_count{call="discovery"}' in text
    assert 'provider_failures_total{call="discovery"}' in text


async def test_live_sessions_are_counted_by_one_process(
    running: Running, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await running.log_in(client)
    async with running.client() as visitor:
        await visitor.post("/api/session/visits")
    turns = 0

    async def wait(_: float) -> None:
        nonlocal turns
        turns += 1
        if turns > 2:
            raise RuntimeError

    monkeypatch.setattr("app.ops.live_sessions.asyncio.sleep", wait)
    with pytest.raises(RuntimeError):
        await count_sessions(running.services.metrics, running.plugin.sessions, 60)
    text = (await client.get("/metrics")).text
    assert 'sessions_live{kind="logged_in"} 1.0' in text
    assert 'sessions_live{kind="anonymous"} 1.0' in text
    assert "store_call_seconds_count" in text


async def test_the_length_of_the_audit_queue_is_a_metric(running: Running, client: httpx.AsyncClient) -> None:
    for _ in range(3):
        running.services.audit.add("test.event", user_key="u")
    assert "audit_queue_entries 3.0" in running.services.metrics.render().decode()
    await running.services.audit.flush()
    assert "audit_queue_entries 0.0" in (await client.get("/metrics")).text
    assert "audit_entries_lost 0.0" in (await client.get("/metrics")).text


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    monkeypatch.setattr("app.services._traces", lambda: Traces("test", SimpleSpanProcessor(exporter)))
    return exporter


async def test_a_request_and_its_calls_are_one_trace(start: Start, spans: InMemorySpanExporter) -> None:
    async with start(app_traces=True) as running, running.client() as client:
        identity = await running.log_in(client)
        spans.clear()
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        await client.post("/api/session/visits", headers={"traceparent": parent, "x-request-id": "one"})
        await client.get("/account/sessions?secret=1")
        await client.post("/api/session/regenerate")
        found = spans.get_finished_spans()
        names = [span.name for span in found]
        assert names.count("POST /api/session/visits") == 1
        assert {"store.load", "store.replace", "store.rotate", "store.find"} <= set(names)
        first = next(span for span in found if span.name == "POST /api/session/visits")
        assert f"{first.context.trace_id:032x}" == parent.split("-")[1]
        assert first.attributes == {
            "request.id": "one",
            "http.request.method": "POST",
            "http.route": "/api/session/visits",
            "http.response.status_code": 200,
        }
        below = [span.name for span in found if span.parent is not None and span.parent.span_id == first.context.span_id]
        assert below == ["store.load", "store.replace"]
        text = json.dumps([json.loads(span.to_json()) for span in found])
        summary = (await running.plugin.sessions.list_for(identity))[0]
        for leak in (identity.subject, identity.user_key, summary.handle, "secret", *client.cookies.values()):
            assert leak not in text


async def test_a_failed_call_is_marked_in_the_trace(
    start: Start, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def out(*_: object) -> Any:
        raise StoreUnavailableError

    async with start(app_traces=True) as running, running.client() as client:
        await running.log_in(client)
        monkeypatch.setattr(running.plugin.store.inner, "load", out)
        assert (await client.get("/api/session")).status_code == 503
        failed = {span.name: span for span in spans.get_finished_spans() if not span.status.is_ok}
        assert failed["store.load"].attributes == {"error.type": "store_unavailable"}
        assert "GET /api/session" in failed


class Collector(HTTPServer):
    """Receives traces as an OpenTelemetry collector does."""

    received: Queue[tuple[str, ExportTraceServiceRequest]]


class CollectorRequest(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.put((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector(("127.0.0.1", 0), CollectorRequest) as server:
        server.received = Queue()
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        serving.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server
        server.shutdown()
        serving.join()


@pytest.mark.parametrize("given", [None, "web-shop"])
async def test_traces_reach_a_collector_with_the_name_of_the_service(
    start: Start, collector: Collector, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    if given is not None:
        monkeypatch.setenv("OTEL_SERVICE_NAME", given)
    async with start(app_traces=True) as running, running.client() as client:
        await client.get("/health/live")
    sent: set[str] = set()
    while "GET /health/live" not in sent:
        path, request = collector.received.get(timeout=120)
        assert path == "/v1/traces"
        for resource in request.resource_spans:
            attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
            assert attributes["service.name"] == (given or NAME)
            sent |= {span.name for spans in resource.scope_spans for span in spans.spans}
