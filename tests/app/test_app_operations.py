"""Health, metrics, the OpenAPI schema, error responses and security headers."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import pytest
from litestar import get
from litestar.exceptions import NotFoundException, ServiceUnavailableException
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery

from app.asgi import create_app
from app.data.database import DatabaseUnavailableError
from app.settings.settings import Settings
from session_core import StoreUnavailableError
from session_core.litestar.online import OnlineCheck
from session_core.oidc import OidcPlugin
from tests.app.conftest import Running, Start
from tests.support.application_state import NO_PROVIDER

pytestmark = pytest.mark.anyio


async def test_health_routes_report_a_running_application(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health/live")).json() == {"status": "ok"}
    ready = await client.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ok", "checks": {"session_store": "ok", "database": "ok"}}


async def test_ready_names_the_store_that_is_down(
    running: Running, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down() -> None:
        raise StoreUnavailableError

    monkeypatch.setattr(running.plugin.store.inner, "ping", down)
    response = await client.get("/health/ready")
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"] == "unavailable: session store (memory)"
    assert (await client.get("/health/live")).status_code == 200


async def test_ready_names_the_database_that_is_down(
    running: Running, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down() -> None:
        raise DatabaseUnavailableError

    monkeypatch.setattr(running.services.database, "ping", down)
    response = await client.get("/health/ready")
    assert response.status_code == 503
    assert response.json()["checks"] == {"session_store": "ok", "database": "unavailable"}


async def test_ready_names_the_column_that_is_missing(running: Running, client: httpx.AsyncClient) -> None:
    async with running.services.database.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE users RENAME COLUMN email TO mail")
    response = await client.get("/health/ready")
    assert response.status_code == 503
    assert "column users.email is missing" in response.json()["detail"]
    async with running.services.database.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE users RENAME COLUMN mail TO email")
    assert (await client.get("/health/ready")).status_code == 200


async def test_a_database_outage_is_a_503_and_ends_no_session(
    running: Running, client: httpx.AsyncClient, capfd: pytest.CaptureFixture[str]
) -> None:
    await running.log_in(client)
    await running.services.database.close()
    response = await client.get("/api/me")
    assert response.status_code == 503
    assert response.json()["code"] == "database_unavailable"
    assert "set-cookie" not in response.headers
    assert "reason='the database is not open'" in capfd.readouterr().err
    await running.services.database.open()
    assert (await client.get("/api/me")).status_code == 200


async def test_visitors_have_the_start_page_while_the_database_is_out(
    running: Running, client: httpx.AsyncClient, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running.client() as visitor:
        await visitor.post("/api/session/visits")
        await running.services.audit.flush()
        await running.services.database.close()
        for http in (client, visitor):  # without and with a session
            assert (await http.get("/", headers={"accept": "text/html"})).status_code == 200
    assert "database unavailable" not in capfd.readouterr().err
    await running.services.database.open()


async def test_metrics_count_by_route_and_contain_no_identifiers(running: Running, client: httpx.AsyncClient) -> None:
    await running.log_in(client)
    await client.post("/api/session/visits")
    handle = (await client.get("/api/sessions")).json()[0]["handle"]
    await client.get("/secret-path-of-a-client?code=abc")
    await client.request("BREW", "/")
    await client.delete(f"/api/sessions/{handle}")
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'http_requests_total{method="POST",route="/api/session/visits",status="200"} 1.0' in response.text
    assert 'session_events_total{event="session.destroyed"} 1.0' in response.text
    for leak in (handle, "alice", "secret-path", "abc", "BREW", client.cookies.get("session-8000") or "none"):
        assert leak not in response.text


async def test_the_schema_is_json_and_names_the_cookie(client: httpx.AsyncClient) -> None:
    response = await client.get("/schema")
    assert response.status_code == 200
    schema = response.json()
    assert schema["components"]["securitySchemes"]["session"] == {
        "type": "apiKey",
        "name": "session-8000",
        "in": "cookie",
        "description": "The session cookie; GET /auth/login begins the login that sets it.",
    }
    assert {"/api/me", "/api/session", "/api/sessions", "/api/session/visits"} <= schema["paths"].keys()
    # An injected value is not a parameter.
    assert "parameters" not in schema["paths"]["/api/session"]["get"]
    assert "<" not in (await client.get("/schema/openapi.yaml")).text[:200]


PROBLEM, JSON = "application/problem+json", "application/json"


async def test_every_error_in_the_openapi_document_is_problem_json(start: Start) -> None:
    async with start(native_clients="desktop http://127.0.0.1/callback") as running, running.client() as client:
        paths = (await client.get("/schema")).json()["paths"]
    operations = {f"{method} {path}": operation for path, item in paths.items() for method, operation in item.items()}
    for name, operation in operations.items():
        errors = {status: list(response["content"]) for status, response in operation["responses"].items() if status >= "4"}
        if name == "post /auth/token":  # RFC 6749 5.2
            assert errors.pop("400") == [JSON, PROBLEM]
        assert all(media_types == [PROBLEM] for media_types in errors.values()), name
    authorize = {"200", "303", "307", "400", "401", "403", "409", "503"}
    assert operations["get /auth/authorize"]["responses"].keys() == authorize
    assert operations["post /auth/authorize"]["responses"].keys() == {*authorize, "429"}
    assert operations["post /auth/token"]["responses"].keys() == {"200", "400", "401", "403", "409", "429", "503"}
    assert {"400", "401"} <= operations["get /api/session"]["responses"].keys()
    login = {"200", "303", "307", "400", "401", "403", "409", "429", "502", "503"}
    assert operations["get /auth/login"]["responses"].keys() == login
    assert operations["post /auth/logout"]["responses"].keys() == {"200", "303", "400", "401", "403", "409", "503"}
    assert operations["post /auth/backchannel-logout"]["responses"].keys() == {"200", "400", "429", "503"}
    assert operations["delete /api/sessions/{handle}"]["responses"].keys() == {"204", "400", "401", "403", "404", "409", "503"}


class Clash(msgspec.Struct):
    other: str


async def test_an_added_route_documents_the_errors_that_it_answers(running: Running, client: httpx.AsyncClient) -> None:
    @get("/parts/{number:int}", raises=[NotFoundException, ServiceUnavailableException], responses={422: ResponseSpec(Clash)})
    async def part(number: FromPath[int], amount: FromQuery[int]) -> int:
        raise NotFoundException if amount else ServiceUnavailableException

    running.app.register(part)
    for schema in ("/schema", "/schema/openapi.json"):
        responses = (await client.get(schema)).json()["paths"]["/parts/{number}"]["get"]["responses"]
        assert {status: list(response["content"]) for status, response in responses.items()} == {
            "200": [JSON], "400": [PROBLEM], "404": [PROBLEM], "422": [JSON], "503": [PROBLEM],
        }  # fmt: skip
    for path, status in (("/parts/1?amount=none", 400), ("/parts/1?amount=2", 404), ("/parts/1?amount=0", 503)):
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)
        schema = responses[str(status)]["content"][PROBLEM]["schema"]
        assert set(schema["required"]) <= answer.json().keys() <= {*schema["properties"], "errors"}


@pytest.mark.attack("60")
@pytest.mark.attack("asvs-3.4.3")
@pytest.mark.attack("asvs-3.4.4")
@pytest.mark.attack("asvs-3.4.5")
@pytest.mark.attack("asvs-3.4.6")
@pytest.mark.attack("asvs-3.4.8")
@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/", 405), ("GET", "/api/me", 401), ("GET", "/", 200)]
)
async def test_every_response_has_security_headers(client: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    response = await client.request(method, path)
    assert response.status_code == status
    policy = response.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "form-action 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "same-origin"
    assert response.headers["cross-origin-opener-policy"] == "same-origin"
    assert response.headers["cross-origin-resource-policy"] == "same-origin"
    assert "strict-transport-security" not in response.headers


@pytest.mark.attack("asvs-3.4.1")
@pytest.mark.attack("asvs-3.3.1")
@pytest.mark.attack("asvs-3.3.3")
async def test_https_sets_hsts_and_the_host_cookie(start: Start) -> None:
    async with start(public_url="https://app.example.org") as running, running.client() as client:
        response = await client.post("/api/session/visits")
        assert response.headers["strict-transport-security"].startswith("max-age=63072000")
        assert response.headers["set-cookie"].startswith("__Host-session=")
        schema = (await client.get("/schema")).json()
        assert schema["components"]["securitySchemes"]["session"]["name"] == "__Host-session"


@pytest.mark.parametrize("status", [404, 405])
async def test_errors_are_pages_for_browsers_and_problem_json_for_programs(running: Running, status: int) -> None:
    method, path = ("GET", "/nowhere") if status == 404 else ("POST", "/")
    async with running.browser() as browser, running.client() as program:
        page = await browser.request(method, path)
        assert page.status_code == status
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "Back to the start page" in page.text
        problem = await program.request(method, path)
        assert problem.status_code == status
        assert problem.headers["content-type"] == "application/problem+json"
        assert problem.json()["status"] == status


async def test_an_unexpected_error_reveals_no_details(
    running: Running, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        message = "the secret reason"
        raise RuntimeError(message)

    monkeypatch.setattr(type(running.services), "user_of", broken)
    response = await client.get("/api/session")
    assert response.status_code == 500
    problem = response.json()
    del problem["request_id"]
    assert problem == {"type": "about:blank", "title": "Internal server error", "status": 500}
    async with running.browser() as browser:
        page = await browser.get("/")
        assert page.status_code == 500
        assert "secret reason" not in page.text


@pytest.mark.attack("58")
async def test_hostile_requests_are_never_a_500(client: httpx.AsyncClient) -> None:
    for path in ("/%00", "/api/sessions/%00", "/api/sessions/" + "x" * 5000, "/?%ff=%fe", "/admin?q=%00", "/static/%00"):
        for method in ("GET", "POST", "DELETE", "PATCH"):
            response = await client.request(method, path, content=b"\xff\xfe", headers={b"cookie": b"session-8000=\xff\xfe; ;=;"})
            assert response.status_code < 500, (method, path)


async def test_check_online_asks_database_and_provider(make_settings: Callable[..., Settings], database: Path) -> None:
    app = create_app(make_settings())  # as the command runs it, without an application

    async def asked() -> dict[str, OnlineCheck]:
        return {check.what: check for check in await app.opt["online_check"]()}

    good = (await asked())["database"]
    assert good.good
    assert good.detail.startswith("revision ")
    with sqlite3.connect(database) as connection:
        connection.execute("ALTER TABLE audit_trail DROP COLUMN actor")
        connection.execute("UPDATE alembic_version SET version_num = '0002'")
    connection.close()
    bad = (await asked())["database"]
    assert not bad.good
    assert "alembic upgrade head" in bad.detail
    (provider,) = await app.plugins.get(OidcPlugin).check_online()
    assert (provider.what, provider.good) == (f"provider {NO_PROVIDER}", False)
    assert provider.detail.startswith("discovery_")
