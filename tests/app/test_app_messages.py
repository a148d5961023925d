"""After an action the next page confirms it once; before an irreversible action a page asks. No message comes from a URL."""

from __future__ import annotations

import re

import httpx
import pytest

from app.web.messages import MESSAGES
from tests.app.conftest import Running, Start

pytestmark = pytest.mark.anyio

STATUS = re.compile(r'<div class="notice done" role="status"><span>([^<]*)</span></div>')


async def said(browser: httpx.AsyncClient, answer: httpx.Response) -> list[str]:
    """The messages on the page after a response, and on the same page when it is loaded again."""
    assert answer.status_code == 303, answer.text
    address = answer.headers["location"]
    assert MESSAGES.keys() & set(re.findall(r"[\w-]+", address)) == set()
    shown = STATUS.findall((await browser.get(address)).text)
    assert STATUS.findall((await browser.get(address)).text) == []
    return shown


@pytest.mark.parametrize(
    ("path", "form", "message"),
    [
        ("/session/visits", {}, "Your visit is counted."),
        ("/session/theme", {"theme": "dark"}, "The dark theme is on."),
        ("/session/preferences", {"language": "de", "note": "x"}, "Your changes are saved."),
        ("/session/regenerate", {}, "Your session has a new id. The old id is no longer valid."),
        ("/account/sessions/end-others", {}, "There was no other device to sign out."),
        ("/auth/logout", {}, "You are logged out."),
    ],
)
async def test_each_action_of_a_user_is_confirmed_once(running: Running, path: str, form: dict[str, str], message: str) -> None:
    async with running.browser() as browser:
        await running.log_in(browser)
        assert await said(browser, await browser.post(path, data=form)) == [message]


async def test_signed_out_devices_are_counted(running: Running) -> None:
    async with running.browser() as browser, running.browser() as phone, running.browser() as tablet:
        for device in (browser, phone, tablet):
            await running.log_in(device)
        assert await said(browser, await browser.post("/account/sessions/end-others")) == ["2 devices are signed out."]
        await running.log_in(phone)
        address = re.findall(r'href="(/account/sessions/[^"]+/end)"', (await browser.get("/account/sessions")).text)[0]
        assert await said(browser, await browser.post(address)) == ["The device is signed out."]
        await running.log_in(tablet)
        handle = next(each["handle"] for each in (await tablet.get("/api/sessions")).json() if each["current"])
        assert await said(tablet, await tablet.post(f"/account/sessions/{handle}/end")) == ["You are logged out."]


async def test_each_action_of_an_administrator_is_confirmed_once(running: Running) -> None:
    async with running.browser() as admin, running.browser() as user:
        await running.log_in(admin, "admin", roles=("admin",))
        bob = await running.log_in(user, "bob")
        address = f"/admin/users/{bob.user_key}"
        handle = (await running.plugin.sessions.list_for(bob))[0].handle
        acts: dict[str, str] = {
            f"sessions/{handle}/end": "The session has ended.",
            "sign-out": "The user is signed out everywhere.",
            "disable": "The account is disabled, and signed out everywhere.",
            "enable": "The account is enabled. Its owner can log in again.",
        }
        for act, message in acts.items():
            assert await said(admin, await admin.post(f"{address}/{act}")) == [message]


@pytest.mark.attack("56")
async def test_a_forged_message_cookie_is_ignored_and_deleted(running: Running) -> None:
    forged = ("<b>x</b>", "unknown", "saved.7", "devices-signed-out", "devices-signed-out.x", "devices-signed-out.12345678")
    for value in forged:
        async with running.browser() as browser:
            answer = await browser.get("/?done=saved", headers={"cookie": f"message-8000={value}"})
            assert STATUS.findall(answer.text) == [], value
            assert value not in answer.text or value == "saved.7"
            assert answer.headers["set-cookie"].startswith('message-8000=""; '), value


async def test_over_https_no_other_host_can_set_the_message_cookie(start: Start) -> None:
    async with start(public_url="https://app.example.org") as running, running.browser() as browser:
        answer = await browser.post("https://app.example.org/session/theme", data={"theme": "dark"})
        cookie = next(value for value in answer.headers.get_list("set-cookie") if "message" in value)
        assert cookie.startswith("__Host-message=theme-dark; ")
        assert {"HttpOnly", "Secure", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))


async def test_api_clients_get_no_message(running: Running) -> None:
    async with running.client() as program:
        await running.log_in(program)
        for path in ("/session/visits", "/auth/logout"):
            answer = await program.post(path)
            assert not any("message" in value for value in answer.headers.get_list("set-cookie"))


async def test_a_page_with_a_message_is_not_cached(running: Running) -> None:
    async with running.browser() as browser:
        answer = await browser.get("/", headers={"cookie": "message-8000=logged-out"})
        assert STATUS.findall(answer.text) == ["You are logged out."]
        assert "no-store" in answer.headers["cache-control"]


async def test_a_page_asks_before_irreversible_actions(running: Running) -> None:
    async with running.browser() as admin, running.browser() as laptop, running.browser() as phone:
        await running.log_in(admin, "admin", roles=("admin",))
        bob = await running.log_in(laptop, "bob")
        await running.log_in(phone, "bob")
        sessions = (await laptop.get("/api/sessions")).json()
        other = next(each["handle"] for each in sessions if not each["current"])
        of_admin = [f"sessions/{other}/end", "sign-out", "disable"]
        asking = [(admin, f"/admin/users/{bob.user_key}/{act}") for act in of_admin]
        asking += [(laptop, f"/account/sessions/{other}/end"), (laptop, "/account/sessions/end-others")]
        for browser, address in asking:
            page = await browser.get(address)
            assert page.status_code == 200
            assert f'<form method="post" action="{address}">' in page.text
            assert "This cannot be undone." in page.text
            assert len(await running.plugin.sessions.list_for(bob)) == 2
        assert (await laptop.get("/account/sessions/unknown/end")).status_code == 404
        assert (await admin.get(f"/admin/users/{bob.user_key}/sessions/unknown/end")).status_code == 404


async def test_the_question_needs_the_same_permission_as_the_action(running: Running) -> None:
    async with running.browser() as stale, running.browser() as user:
        await running.log_in(stale, "admin", roles=("admin",), minutes_ago=30)
        bob = await running.log_in(user, "bob")
        address = f"/admin/users/{bob.user_key}/disable"
        assert (await user.get(address)).status_code == 403
        led = (await stale.get(address)).headers["location"]
        # After the login the page asks again; an earlier submission is not replayed.
        assert led.startswith(f"/auth/login?next=%2Fadmin%2Fusers%2F{bob.user_key}%2Fdisable&max_age=240")
        assert "unsent" not in led
