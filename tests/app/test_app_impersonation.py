"""An administrator logs in as a user: button, banner, closed routes, audit trail, end."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.asgi import create_app
from app.settings.providers import further_providers
from app.settings.settings import EMBEDDED_ISSUER, Settings
from session_core import Identity
from session_core.testing import FakeClock
from tests.app.conftest import Running, Start

pytestmark = pytest.mark.anyio

BANNER = 'action="/impersonation/end"'
PROGRAM = {"accept": "application/json"}
NAVIGATION = {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "accept": "text/html"}
PAGES = ["/", "/account", "/account/sessions", "/nowhere", "/account/sessions/unknown/nothing", "/account/sessions/end-others"]
"""Error pages too."""


async def administrator(running: Running, http: httpx.AsyncClient) -> Identity:
    return await running.log_in(http, "root", roles=("admin",))


async def user(running: Running, name: str = "alice", **options: Any) -> Identity:
    async with running.client() as http:
        return await running.log_in(http, name, **options)


async def act_as(admin: httpx.AsyncClient, who: Identity) -> httpx.Response:
    return await admin.post(f"/admin/users/{who.user_key}/act-as")


@pytest.mark.attack("85")
async def test_impersonation_from_start_to_end(running: Running) -> None:
    async with running.browser() as admin, running.browser() as browser:
        root = await administrator(running, admin)
        alice = await running.log_in(browser)
        await browser.post("/session/visits")
        address = f"/admin/users/{alice.user_key}"
        assert f'action="{address}/act-as"' in (await admin.get(address)).text
        assert (await act_as(admin, alice)).headers["location"] == "/"
        for path in PAGES:
            page = (await admin.get(path)).text
            assert BANNER in page
            assert "<strong>Alice</strong> for another 15 min" in page
            assert BANNER not in (await browser.get(path)).text
        assert (await admin.get("/api/me")).json()["subject"] == "alice"
        refused = await admin.get("/admin")
        assert (refused.status_code, BANNER in refused.text) == (403, True)  # error pages show the banner too
        assert "End that first, by the button above." in refused.text
        assert "You logged in through" not in (await admin.get("/")).text
        assert "Log in again" not in (await admin.get("/account")).text
        await admin.post("/session/visits")
        ended = await admin.post("/impersonation/end")
        assert ended.headers["location"] == address
        assert BANNER not in (await admin.get(address)).text
        assert (await admin.get("/api/me")).json()["subject"] == "root"
        assert (await browser.get("/api/session")).json()["visits"] == 1

        await running.services.audit.flush()
        told = [each for each in await running.services.audit.of_user(alice.user_key) if each.actor]
        assert [each.event for each in reversed(told)] == ["impersonation.started", *["access.denied"] * 2, "impersonation.ended"]
        assert {each.actor for each in told} == {root.user_key}
        trail = (await browser.get("/account")).text
        assert "An administrator logged in as this user" in trail
        assert re.search("The administrator who was logged in as this user left</span> <[^>]*>the administrator returned", trail)
        lines = re.findall(r"A page was refused.*?an administrator", trail, re.DOTALL)
        assert lines
        assert all(line.endswith("to an administrator") for line in lines)


@pytest.mark.attack("85")
async def test_every_entry_during_impersonation_names_the_administrator(running: Running) -> None:
    async with running.browser() as admin:
        root = await administrator(running, admin)
        alice = await user(running)
        await act_as(admin, alice)
        running.services.audit.add("of.no.request", user_key=alice.user_key)
        await admin.post("/api/session/regenerate")
        await admin.post("/account/sessions/end-others")
        await running.services.audit.flush()
        entries = {each.event: each for each in await running.services.audit.of_user(alice.user_key)}
        assert entries["of.no.request"].actor is None
        for event in ("impersonation.started", "session.regenerated", "access.denied"):
            assert (entries[event].actor, entries[event].user_key) == (root.user_key, alice.user_key)


@pytest.mark.attack("84")
async def test_pages_offer_nothing_that_is_refused(running: Running) -> None:
    async with running.browser() as admin, running.browser() as phone, running.browser() as laptop:
        await administrator(running, admin)
        alice = await running.log_in(phone)
        await running.log_in(laptop)
        await act_as(admin, alice)
        pages = {path: (await admin.get(path)).text for path in ("/", "/account", "/account/sessions")}
        assert "Only the user can sign these devices out" in pages["/account/sessions"]
        for page in pages.values():
            for address in set(re.findall(r'href="(/[^"#?]*)"', page)):
                assert (await admin.get(address)).status_code < 400, address
            assert "Sign out" not in page


@pytest.mark.attack("84")
async def test_the_choice_of_providers_has_the_banner(
    make_settings: Callable[..., Settings], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown to the user of a provider that is no longer configured."""
    for number, name in ((1, "one"), (2, "two")):
        monkeypatch.setenv(f"OIDC_{number}_ID", name)
        monkeypatch.setenv(f"OIDC_{number}_ISSUER", f"https://{name}.example")
        monkeypatch.setenv(f"OIDC_{number}_CLIENT_ID", "shop")
        monkeypatch.setenv(f"OIDC_{number}_CLIENT_SECRET", "Jc7Wm2xTq9Lf4RzKp8Vd1NsYb6Hg3Ea0UoIiXkQwMtB")
    settings = make_settings(oidc_issuer=EMBEDDED_ISSUER)  # as if it were not set
    settings._further = further_providers(None, None)
    app = create_app(settings, clock=clock)
    running = Running(app, clock)
    async with app.lifespan(), running.browser() as admin, running.browser() as visitor:
        await administrator(running, admin)
        await act_as(admin, await user(running))
        for browser in (admin, visitor):
            page = (await browser.get("/auth/login", headers=NAVIGATION)).text
            assert ">one</a>" in page
            assert (BANNER in page) is (browser is admin)


@pytest.mark.attack("84")
async def test_routes_for_the_user_alone_are_closed_during_impersonation(running: Running) -> None:
    async with running.browser() as admin, running.client() as phone:
        await administrator(running, admin)
        alice = await running.log_in(phone)
        carol = await user(running, "carol")
        (session,) = await running.plugin.sessions.list_for(alice)
        await act_as(admin, alice)
        for method, path in [
            ("POST", f"/account/sessions/{session.handle}/end"), ("POST", "/account/sessions/end-others"),
            ("DELETE", "/api/sessions"), ("DELETE", f"/api/sessions/{session.handle}"),
            ("GET", "/admin"), ("GET", "/admin/audit"),
            ("GET", "/admin/audit.csv"), ("GET", f"/admin/users/{alice.user_key}"), ("GET", "/api/userinfo"),
            ("POST", f"/admin/users/{carol.user_key}/act-as"), ("POST", f"/admin/users/{carol.user_key}/disable"),
        ]:  # fmt: skip
            answer = await admin.request(method, path)
            assert (answer.status_code, "location" in answer.headers) == (403, False), path
        assert (await phone.get("/api/me")).status_code == 200
        assert (await admin.get("/api/me")).json()["subject"] == "alice"


@pytest.mark.attack("81")
async def test_refused_impersonations(running: Running) -> None:
    async with running.browser() as admin, running.browser() as stale, running.client() as plain:
        root = await administrator(running, admin)
        await running.log_in(stale, "later", roles=("admin",), minutes_ago=30)
        alice = await running.log_in(plain)
        other = await user(running, "another-root", roles=("admin",))
        off = await user(running, "gone")
        await running.services.users.set_disabled(off.user_key, disabled=True)
        assert (await act_as(plain, alice)).status_code == 403
        assert (await stale.post(f"/admin/users/{alice.user_key}/act-as", headers=PROGRAM)).status_code == 401
        for target in (root, other, off):
            assert (await act_as(admin, target)).status_code == 403
            assert "/act-as" not in (await admin.get(f"/admin/users/{target.user_key}")).text
        assert (await admin.post("/admin/users/unknown/act-as")).status_code == 404
        cross = await admin.post(f"/admin/users/{alice.user_key}/act-as", headers={"sec-fetch-site": "cross-site"})
        assert cross.status_code == 403
        assert (await admin.get("/api/me")).json()["subject"] == "root"


@pytest.mark.attack("82")
@pytest.mark.parametrize("loses", ["role", "account", "sessions", "user"])
async def test_the_next_request_is_refused_when_the_administrator_loses_the_role(running: Running, loses: str) -> None:
    users = running.services.users
    async with running.browser() as admin:
        root = await administrator(running, admin)
        alice = await user(running)
        await act_as(admin, alice)
        match loses:
            case "role":
                await users.remember(root, {"roles": ["user"]})
            case "account":
                await users.set_disabled(root.user_key, disabled=True)
            case "sessions":
                await running.plugin.sessions.revoke_all(root)
            case _:
                await users.set_disabled(alice.user_key, disabled=True)
        assert (await admin.get("/api/me", headers=PROGRAM)).status_code == 401
        assert BANNER not in (await admin.get("/")).text
        assert (await admin.post("/impersonation/end")).headers["location"] == "/"
        assert await running.plugin.sessions.list_for(root) == []


@pytest.mark.attack("80")
async def test_impersonation_ends_after_its_time_limit(start: Start) -> None:
    async with start(app_impersonation_seconds=120) as running, running.browser() as admin:
        await administrator(running, admin)
        await act_as(admin, await user(running))
        running.clock.advance(seconds=119)
        assert (await admin.get("/api/me")).status_code == 200
        running.clock.advance(seconds=1)
        assert (await admin.get("/api/me", headers=PROGRAM)).status_code == 401


async def test_impersonation_can_be_switched_off(start: Start) -> None:
    async with start(app_impersonation_seconds=0) as running, running.browser() as admin:
        await administrator(running, admin)
        alice = await user(running)
        assert "/act-as" not in (await admin.get(f"/admin/users/{alice.user_key}")).text
        assert (await act_as(admin, alice)).status_code == 404


async def test_the_administrators_device_list_shows_the_impersonation(running: Running) -> None:
    async with running.browser() as admin, running.browser() as laptop:
        root = await administrator(running, admin)
        await running.log_in(laptop, "root", roles=("admin",))
        await act_as(admin, await user(running))
        assert (await laptop.get("/account/sessions")).text.count("logged in as another user") == 1
        assert (await laptop.get(f"/admin/users/{root.user_key}")).text.count("logged in as another user") == 1


async def test_audit_pages_show_both_names(running: Running) -> None:
    async with running.browser() as admin:
        await administrator(running, admin)
        await act_as(admin, await user(running))
        await admin.post("/impersonation/end")
        page = (await admin.get("/admin/audit?event=impersonation")).text
        rows = re.findall(r"<code>impersonation\.(\w+)</code>", page)
        assert sorted(rows) == ["ended", "started"]
        assert "Root" in page
        assert "Alice" in page
