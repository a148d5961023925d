"""Trusted origins, and settings refused at start."""

from __future__ import annotations

from typing import Any, cast

import pytest
from litestar import get, post
from litestar.config.cors import CORSConfig
from litestar.testing import TestClient
from structlog.testing import capture_logs

from session_core import ConfigurationError, Event, SessionPlugin
from session_core.asgi.same_origin import cross_site_reason, cross_site_websocket_reason
from session_core.trusted_origins import TrustedOrigins
from tests.support.sessions import make_app, make_config

OURS = "https://app.example.com"


def passes(trusted: Any, origin: str, site: str | None = "cross-site") -> bool:
    sent = [(b"host", b"app.example.com"), (b"origin", origin.encode())]
    sent += [(b"sec-fetch-site", site.encode())] if site else []
    known = TrustedOrigins(trusted)
    by_post = cross_site_reason("POST", sent, public_origin=OURS, trusted_origins=known) is None
    assert by_post == (cross_site_websocket_reason(sent, public_origin=OURS, trusted_origins=known) is None)
    return by_post


@pytest.mark.parametrize(
    ("trusted", "origin"),
    [
        ("https://admin.example.org", "https://admin.example.org"),
        ("https://Admin.example.org:443/", "https://admin.example.org"),
        ("https://*.example.org", "https://a.example.org"),
        ("https://*.example.org", "https://a.b.example.org"),
        ("https://*.example.org:8443", "https://a.example.org:8443"),
        ("http://*.localhost:3000", "http://tenant.localhost:3000"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("ionic://localhost", "ionic://localhost"),
        ("tauri://localhost", "tauri://localhost"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
    ],
)
@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", None])
def test_a_trusted_origin_passes(trusted: str, origin: str, site: str | None) -> None:
    assert passes([trusted], origin, site)
    assert not passes([], origin, site)


@pytest.mark.attack("60")
@pytest.mark.parametrize(
    ("trusted", "origin"),
    [
        ("https://*.example.org", "https://example.org"),
        ("https://*.example.org", "http://a.example.org"),
        ("https://*.example.org", "https://a.example.org:8443"),
        ("https://*.example.org", "https://aexample.org"),
        ("https://*.example.org", "https://a.example.org.evil.example"),
        ("https://*.example.org", "https://evil.example/.example.org"),
        ("https://*.example.org", "https://evil.example#.example.org"),
        ("https://*.example.org", "https://.example.org"),
        ("capacitor://localhost", "capacitor://localhost.evil.example"),
        ("capacitor://localhost", "ionic://localhost"),
        ("capacitor://localhost", "http://localhost"),
        ("capacitor://localhost", "null"),
    ],
)
def test_a_similar_origin_is_refused(trusted: str, origin: str) -> None:
    assert not passes([trusted], origin)


def test_a_function_decides_by_the_origin() -> None:
    asked: list[str] = []

    def tenant(origin: str) -> bool:
        asked.append(origin)
        return origin in {"https://tenant.example.net", "capacitor://localhost"}

    assert passes(tenant, "https://TENANT.example.net:443")
    assert passes([tenant, "https://admin.example.org"], "https://admin.example.org")
    assert passes([tenant], "capacitor://localhost")
    assert not passes(tenant, "https://evil.example")
    assert set(asked) == {"https://tenant.example.net", "capacitor://localhost", "https://evil.example"}
    assert not passes(cast("Any", lambda _: "yes"), "https://evil.example")  # only True accepts


@pytest.mark.parametrize(
    "given",
    [
        "*", "https://*", "https://*.org", "https://*.*.example.org", "https://a*.example.org", "*.example.org", "https://a.*.org",
        "https://*.example.org/path", "https://*.127.0.0.1", "https://*.0.1", "capacitor://*.localhost", "admin.example.org", "",
        "null", "file://", "file://localhost", "data:text/html", "https://admin.example.org/path", "javascript://localhost",
        "capacitor://", "capacitor://local host", "capacitor://localhost/path", "https://user:hunter2@admin.example.org",
    ],
)  # fmt: skip
def test_an_invalid_origin_is_refused_at_start(given: str) -> None:
    with pytest.raises(ConfigurationError, match="trusted_origins") as refused:
        make_config(trusted_origins=[given])
    assert "hunter2" not in str(refused.value)


async def never_awaited(origin: str) -> bool:
    return bool(origin)


class NeverAwaited:
    async def __call__(self, origin: str) -> bool:
        return bool(origin)


@pytest.mark.parametrize(
    ("given", "problem"),
    [("https://admin.example.org", "list"), (None, "list"), ([None], "list"), ([["https://admin.example.org"]], "list"),
     (never_awaited, "async"), ([never_awaited], "async"), (NeverAwaited(), "async")],
)  # fmt: skip
def test_another_value_than_origins_and_plain_functions_is_refused(given: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=f"trusted_origins.*{problem}"):
        make_config(trusted_origins=given)


# -- logs and warnings


@post("/change")
async def change() -> None: ...


@get("/read-only")
async def read_only() -> None: ...


def test_a_refused_request_is_logged_with_its_origin_and_the_setting() -> None:
    events: list[Event] = []
    app = make_app(change, on_event=[events.append])
    with TestClient(app) as client:
        for origin, shown in (
            ("https://Spa.example:443", "https://spa.example"),
            ("capacitor://localhost", "capacitor://localhost"),
        ):
            assert client.post("/change", headers={"origin": origin}).status_code == 403
            assert events[-1].detail == {"origin": shown, "setting": "trusted_origins"}
        for junk in ("null", "x\x1b[0m", "https://a b"):
            assert client.post("/change", headers={"origin": junk}).status_code == 403
            assert events[-1].detail == {}


def started(cors: CORSConfig, *handlers: Any, **options: Any) -> list[str]:
    """The CORS warnings at application start."""
    from litestar import Litestar

    config = make_config(**options)
    app = Litestar(list(handlers), plugins=[SessionPlugin(config)], cors_config=cors, openapi_config=None, logging_config=None)
    with capture_logs() as logs, TestClient(app):
        pass
    return [entry["problem"] for entry in logs if entry["event"] == "cors and trusted origins disagree"]


SPA = "https://spa.example.org"


@pytest.mark.parametrize(
    ("cors", "trusted", "problem"),
    [
        ({"allow_origins": [SPA], "allow_credentials": True}, [], f"allow_origins has {SPA}, but its POST"),
        ({"allow_origins": ["*"]}, [], "allow_origins has *, but its POST"),
        ({"allow_origin_regex": r"https://.*\.example\.org"}, [], "list the origins there and in SessionConfig.trusted_origins"),
        (
            {"allow_origins": ["https://*.example.org"], "allow_credentials": True},
            [SPA],
            "allow_origins has https://*.example.org",
        ),
        ({"allow_origins": [], "allow_credentials": True}, [SPA], f"trusted_origins has {SPA}, but browsers show"),
        (
            {"allow_origins": [SPA], "allow_credentials": True},
            [SPA, "https://*.example.net"],
            "trusted_origins has https://*.example.net",
        ),
        ({"allow_origins": [SPA]}, [SPA], "without the session cookie"),
    ],
)
def test_contradictory_cors_and_trusted_origins_are_a_warning_at_start(cors: Any, trusted: list[str], problem: str) -> None:
    (said,) = started(CORSConfig(**cors), change, trusted_origins=trusted)
    assert problem in said
    assert said.count("http") >= 1 or "*" in said


@pytest.mark.parametrize(
    ("cors", "trusted"),
    [
        ({"allow_origins": [SPA], "allow_credentials": True}, [SPA]),
        ({"allow_origins": [SPA, "http://localhost:8000"], "allow_credentials": True}, [SPA]),
        ({"allow_origins": ["https://*.example.org"], "allow_credentials": True}, ["https://*.example.org"]),
        ({"allow_origins": [], "allow_origin_regex": r"https://.*\.example\.org", "allow_credentials": True}, [SPA]),
        ({"allow_origins": [SPA, "capacitor://localhost"], "allow_credentials": True}, lambda _: True),
        ({"allow_origins": ["*"], "allow_methods": ["GET"]}, []),
    ],
)
def test_matching_settings_are_no_warning(cors: Any, trusted: Any) -> None:
    assert started(CORSConfig(**cors), change, trusted_origins=trusted) == []


def test_without_a_state_changing_route_there_is_no_warning() -> None:
    @post("/open", opt={"cross_site": True})
    async def open_to_all() -> None: ...

    assert started(CORSConfig(allow_origins=["*"]), read_only, open_to_all) == []
