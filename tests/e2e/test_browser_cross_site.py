"""Cross-site requests in every way that Chromium, Firefox and WebKit support; none may change anything.

The requests are compared with the table of docs/explanation/cross-site.md. Each accepted combination of headers must be in the
table, and a browser must have sent it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

import pytest
from litestar import WebSocket, websocket

from session_core import Session
from tests.support.browsers.window import Browser, Window
from tests.support.cross_site_pages import CLICKED, KINDS, Pages, page_address
from tests.support.cross_site_table import Combination, read_table
from tests.support.sessions import AppSession, make_app
from tests.support.thread_server import listen, served

pytestmark = pytest.mark.e2e

_PLAIN: Final = "http://app.example.test"
"""A host that is not loopback: browsers send it no Sec-Fetch headers over plain http. WebKit cannot be configured for one."""
_NO_PING: Final = "Firefox"
_NO_REFERRER: Final = frozenset(
    {"form", "clicked form", "text/plain form", "fetch with cors", "fetch without cors", "beacon", "WebSocket"}
)
_OWN: Final = (
    "form",
    "clicked form",
    "text/plain form",
    "form redirected by 307",
    "form in a srcdoc frame",
    "fetch with cors",
    "fetch without cors",
    "beacon",
    "WebSocket",
)


@dataclass
class Seen:
    """A request of a page as the application received it, and its response."""

    fetch_site: str | None
    origin: str | None
    cookie: bool
    accepted: bool
    sets_cookie: bool


@websocket("/socket")
async def talk(socket: WebSocket[Any, Any, Any], session: Session[AppSession]) -> None:
    if session.exists:
        session.data.note = "said by WebSocket"
    await socket.accept()
    await socket.close()


class Watched:
    """The application with test pages; records the requests by tag."""

    def __init__(self, public_url: str, trusted: tuple[str, ...]) -> None:
        self.seen: dict[str, list[Seen]] = {}
        self._pages = Pages()
        self._app = make_app(talk, public_url=public_url, trusted_origins=trusted)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] in {"/page", "/redirect"}:
            await self._pages(scope, receive, send)
            return
        tag = parse_qs(scope.get("query_string", b"").decode()).get("tag", [None])[0]
        if tag is None:
            await self._app(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}

        first = True

        async def note(message: Any) -> None:
            nonlocal first
            if first:
                first = False
                seen = Seen(
                    fetch_site=headers.get("sec-fetch-site"),
                    origin=headers.get("origin"),
                    cookie="session-" in headers.get("cookie", ""),
                    accepted=message["type"] == "websocket.accept" or message.get("status", 403) < 300,
                    sets_cookie=any(name.lower() == b"set-cookie" for name, _ in message.get("headers") or ()),
                )
                self.seen.setdefault(tag, []).append(seen)
            await send(message)

        await self._app(scope, receive, note)


@dataclass
class Sites:
    """The sites: two applications, and a server of pages under trusted and other origins."""

    app: Watched
    plain: Watched
    own: str
    own_plain: str
    pages_port: int
    trusted_port: int
    origins: dict[str, str] = field(default_factory=dict)
    """Origins by their names in the table; all others are `other`."""


@pytest.fixture
def sites() -> Iterator[Sites]:
    (app_socket, app_port), (plain_socket, plain_port) = listen(), listen()
    (pages_socket, pages_port), (trusted_socket, trusted_port) = listen(), listen()
    own, own_plain = f"http://localhost:{app_port}", f"{_PLAIN}:{plain_port}"
    trusted = tuple(f"http://{host}:{trusted_port}" for host in ("localhost", "127.0.0.1", "sibling.example.test"))
    origins = {own: "ours", own_plain: "ours", f"http://127.0.0.1:{app_port}": "another name of ours", "null": "null"}
    origins |= dict.fromkeys(trusted, "trusted")
    app, plain = Watched(own, trusted), Watched(own_plain, trusted)
    with served(app, app_socket), served(plain, plain_socket), served(Pages(), pages_socket, trusted_socket):
        yield Sites(app, plain, own, own_plain, pages_port, trusted_port, origins)


class Visits:
    """One browser visits page after page; every request is recorded with its sender."""

    def __init__(self, window: Window, sites: Sites) -> None:
        self.window = window
        self.sites = sites
        self.sent: list[tuple[str, Seen]] = []

    def go(
        self, sender: str, origin: str, kind: str, policy: str = "", redirect_policy: str = "", *, plain: bool = False
    ) -> None:
        app, own = (self.sites.plain, self.sites.own_plain) if plain else (self.sites.app, self.sites.own)
        own = origin if sender == "own alias" else own
        tag = f"{sender} {origin} {kind} {policy} {redirect_policy}"
        path = "/socket" if "WebSocket" in kind else "/visit"
        self.window.open(page_address(origin, kind, f"{own}{path}?{urlencode({'tag': tag})}", policy, redirect_policy))
        if kind in CLICKED:
            self.window.click("button")
        deadline = time.monotonic() + self.window.timeout
        while tag not in app.seen:
            assert time.monotonic() < deadline, f"nothing was sent: {tag}"
            time.sleep(0.01)
        if "frame" not in kind and "form" in kind and "opened" not in kind:
            # The next page is opened after this navigation has finished: browsers drop a navigation that starts during another
            # one.
            self.window.wait_for("return location.pathname === '/visit' && document.readyState === 'complete'")
        elif kind == "ping":
            self.window.wait_for("return location.pathname === '/left' && document.readyState === 'complete'")
        self.sent += [(f"{sender}: {tag}", seen) for seen in app.seen[tag]]

    def combination(self, seen: Seen) -> Combination:
        origin = "absent" if seen.origin is None else self.sites.origins.get(seen.origin, "other")
        return Combination(seen.fetch_site or "absent", origin)


def log_in(window: Window, origin: str) -> None:
    window.open(f"{origin}/public")
    window.run("await fetch('/login/alice', {method: 'POST'})")


def state(window: Window, origin: str) -> Any:
    window.open(f"{origin}/public")
    return window.run("return await (await fetch('/read')).json()")


def visit_hostile_pages(visits: Visits, browser: Browser) -> None:
    for host in ("localhost", "127.0.0.1"):
        hostile = f"http://{host}:{visits.sites.pages_port}"
        for kind in KINDS:
            if kind == "ping" and browser.name == _NO_PING:
                continue
            visits.go("hostile", hostile, kind)
            if kind in _NO_REFERRER:
                visits.go("hostile", hostile, kind, "no-referrer")
        for redirect_policy in ("no-referrer", "origin"):
            visits.go("hostile", hostile, "form redirected by 307", "no-referrer", redirect_policy)


def visit_trusted_and_own_pages(visits: Visits, browser: Browser) -> None:
    sites = visits.sites
    for host in ("localhost", "127.0.0.1"):
        trusted = f"http://{host}:{sites.trusted_port}"
        for kind in ("form", "fetch without cors", "WebSocket"):
            visits.go("trusted", trusted, kind)
        if browser.name == "Firefox":  # the others send `null`
            visits.go("trusted", trusted, "form redirected by 307", "no-referrer", "origin")
    for kind in _OWN:
        visits.go("own", sites.own, kind)
        if kind in _NO_REFERRER:
            visits.go("own", sites.own, kind, "no-referrer")
    visits.go("own", sites.own, "form redirected by 307", "no-referrer", "origin")
    visits.go("own alias", sites.own.replace("localhost", "127.0.0.1"), "form")


def visit_all_over_plain_http(visits: Visits) -> None:
    sites = visits.sites
    kinds = ("form", "form redirected by 307", "fetch without cors", "WebSocket")
    for host in ("sibling.example.test", "other.test"):
        for kind in kinds:
            visits.go("hostile", f"http://{host}:{sites.pages_port}", kind, plain=True)
    for kind in kinds:
        visits.go("own", sites.own_plain, kind, plain=True)
    visits.go("trusted", f"http://sibling.example.test:{sites.trusted_port}", "form", plain=True)


@pytest.mark.attack("60")
@pytest.mark.attack("asvs-3.5.1")
@pytest.mark.attack("asvs-3.5.2")
def test_no_page_of_another_site_changes_anything(any_browser: Browser, sites: Sites) -> None:
    table = read_table()
    with any_browser.window() as window:
        visits = Visits(window, sites)
        log_in(window, sites.own)
        visit_hostile_pages(visits, any_browser)
        after = state(window, sites.own)
        visit_trusted_and_own_pages(visits, any_browser)
        if any_browser.name != "WebKit":
            log_in(window, sites.own_plain)
            visit_all_over_plain_http(visits)
    fresh = {"theme": "light", "cart": [], "visits": 0, "note": "", "roles": []}
    assert (after["subject"], after["data"]) == ("alice", fresh)
    accepted = [(tag, seen) for tag, seen in visits.sent if seen.accepted]
    assert [tag for tag, seen in accepted if tag.startswith("hostile")] == []
    assert [tag for tag, seen in visits.sent if tag.startswith("hostile") and seen.sets_cookie] == []
    # The attacks are real: a sibling origin's request carries the cookie.
    assert any(seen.cookie for tag, seen in visits.sent if tag.startswith("hostile"))
    unknown = {visits.combination(seen): tag for tag, seen in visits.sent if visits.combination(seen) not in table}
    assert unknown == {}
    judged = {(visits.combination(seen), seen.accepted) for _, seen in visits.sent}
    assert judged == {(combination, table[combination].accepted) for combination, _ in judged}
    # Every accepted combination must have been observed, so that the rule is no wider than browsers need.
    named = {combination for combination, row in table.items() if row.accepted and any_browser.name in row.senders}
    assert {visits.combination(seen) for _, seen in accepted} == named
    refused = {tag for tag, seen in visits.sent if tag.startswith(("own", "trusted")) and not seen.accepted}
    assert refused == set()
