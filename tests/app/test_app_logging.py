"""The log is structured, covers every request and contains no secret, whichever logger wrote it."""

from __future__ import annotations

import json
import logging
from typing import Any, cast

import pytest
import structlog

from app.ops.log import configure_logging
from app.ops.redaction import redact, redact_text
from tests.app.conftest import Start

CANARY = "Q2FuYXJ5LXRoYXQtbXVzdC1ub3QtYmUtbG9nZ2VkLTEyMw"


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    "name",
    [
        "cookie",
        "Set-Cookie",
        "authorization",
        "password",
        "client_secret",
        "access_token",
        "id_token",
        "refresh_token",
        "token",
        "code",
        "state",
        "nonce",
        "code_verifier",
        "session_id",
        "sid",
        "query",
        "body",
        "SESSION_SECRETS",
        "encryption_key",
    ],
)
def test_fields_with_secret_names_are_redacted(name: str) -> None:
    for value in (CANARY, [CANARY], {"x": CANARY}, CANARY.encode()):
        assert CANARY not in str(redact(None, "info", {"event": "x", "nested": {name: value}, name: value}))


@pytest.mark.parametrize(
    "text",
    [
        f"GET /auth/callback?code={CANARY}&iss=x",
        f"?state={CANARY}",
        f"Cookie: session-8000=s%3A{CANARY}.{CANARY}",
        f"session-8000=s:{CANARY}.{CANARY}; theme=dark",
        f"Authorization: Bearer {CANARY}",
        f"Authorization: Basic {CANARY}",
        f"eyJhbGciOiJFUzI1NiJ9.{CANARY}.{CANARY}",
        f"postgresql://app:{CANARY}@db/app",
        f"{{'access_token': '{CANARY}', 'x': 1}}",
        f'{{"refresh_token": "{CANARY}"}}',
        f"password={CANARY}",
        f"id_token_hint={CANARY}",
    ],
)
def test_values_that_look_like_secrets_are_redacted_anywhere(text: str) -> None:
    assert CANARY not in redact_text(text)
    assert CANARY not in str(redact(None, "info", {"event": text, "error": ValueError(text), "list": [text]}))


def test_harmless_values_are_kept() -> None:
    entry = {"event": "request", "status": 200, "status_code": 404, "path": "/account", "user_key": "k", "ok": True, "none": None}
    assert redact(None, "info", dict(entry)) == entry
    assert redact_text("the status code was 404") == "the status code was 404"


def test_standard_library_loggers_are_redacted_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(level="INFO", as_json=True)
    logging.getLogger("some.library").warning("sent %s", f"Bearer {CANARY}", extra={"token": CANARY})
    logging.getLogger("httpx2").info("GET https://op/token?code=%s", CANARY)
    try:
        raise ValueError(f"bad code={CANARY}")  # noqa: EM102, TRY003, TRY301 - as careless code does
    except ValueError:
        structlog.get_logger("app").exception("failed", cookie=CANARY)
    written = capsys.readouterr().err
    assert CANARY not in written
    assert [line["level"] for line in lines_of(written)] == ["warning", "error"]
    assert "ValueError" in lines_of(written)[1]["exception"]


@pytest.mark.attack("asvs-14.2.4")
@pytest.mark.anyio
async def test_the_access_log_describes_requests_without_their_content(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    async with start() as running:
        configure_logging(level="DEBUG", as_json=True)
        capsys.readouterr()  # a start-up message in the old format
        cast("Any", running.app.asgi_handler)._loud = True
        async with running.client(**{"user-agent": "test", "authorization": f"Bearer {CANARY}"}) as client:
            await running.log_in(client)
            cookie = client.cookies.get("session-8000") or ""
            await client.get(f"/api/me?code={CANARY}&state={CANARY}")
            await client.patch("/api/session", json={"note": CANARY})
            await client.get(f"/nowhere?x={CANARY}", headers={"cookie": f"session-8000={CANARY}"})
            await client.post("/api/session/regenerate")
            secrets = [CANARY, cookie, cookie[6:40], client.cookies.get("session-8000") or ""]
            secrets += [stored.key async for stored in running.plugin.store.scan()]
    written = capsys.readouterr().err
    for secret in secrets:
        assert secret
        assert secret not in written
    requests = [line for line in lines_of(written) if line["event"] == "request"]
    assert [(line["method"], line["path"], line["status"]) for line in requests] == [
        ("GET", "/api/me", 200),
        ("PATCH", "/api/session", 200),
        ("GET", "/nowhere", 404),
        ("POST", "/api/session/regenerate", 204),
    ]
    assert all(line["request_id"] and line["milliseconds"] >= 0 and line["client"] == "127.0.0.1" for line in requests)


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/auth/backchannel-logout", "/auth/login", "/session/preferences", "/api/session/visits"])
async def test_a_client_that_disconnects_during_a_form_is_no_error(
    start: Start, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    messages = [{"type": "http.request", "body": b"note=ha", "more_body": True}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if len(messages) > 1 else messages[0]

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost:8000"), (b"content-type", b"application/x-www-form-urlencoded"), (b"accept", b"text/html")]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http", "path": path}
    scope |= {"raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers, "client": ("127.0.0.1", 1)}
    async with start() as running:
        configure_logging(level="DEBUG", as_json=True)
        capsys.readouterr()
        await cast("Any", running.app)(scope, receive, send)
        entries = lines_of(capsys.readouterr().err)
    assert sent[0]["status"] < 500
    assert [entry for entry in entries if entry["level"] == "error" or "exception" in entry] == []
