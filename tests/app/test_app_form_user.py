"""A form of a page that was shown to a user is not carried out for anyone else; forms of visitors are as before."""

from __future__ import annotations

from html.parser import HTMLParser

import httpx
import pytest

from tests.app.conftest import Running

pytestmark = pytest.mark.anyio

TYPED = {"note": "milk and bread", "language": "de", "theme": "dark"}
ANY_LOGIN = ("/auth/logout", "/impersonation/end")
"""Forms that only end what the browser has."""


class Forms(HTMLParser):
    """The POST forms of a page: their addresses, and their hidden fields."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self._within = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self._within = given.get("method") == "post"
            if self._within:
                self.found.append((given["action"] or "", {}))
        elif tag == "input" and self._within and given.get("type") == "hidden":
            self.found[-1][1][given["name"] or ""] = given["value"] or ""


async def forms_for(browser: httpx.AsyncClient, *pages: str) -> list[tuple[str, dict[str, str]]]:
    """The forms of these pages that act for the user whom the page was shown to."""
    found = []
    for page in pages:
        answer = await browser.get(page)
        assert answer.status_code in {200, 404}, page
        found += [form for form in Forms(answer.text).found if form[0] not in ANY_LOGIN]
    return found


async def forms_of_every_page(running: Running, browser: httpx.AsyncClient) -> list[tuple[str, dict[str, str]]]:
    """The forms that an administrator sees, who has two devices."""
    async with running.browser() as phone, running.browser() as other:
        await running.log_in(browser, "admin", roles=("admin",))
        await running.log_in(phone, "admin", roles=("admin",))
        bob, eve = await running.log_in(other, "bob"), await running.log_in(other, "eve")
        await browser.post(f"/admin/users/{eve.user_key}/disable")
        handle = next(each["handle"] for each in (await browser.get("/api/sessions")).json() if not each["current"])
        of_bob = f"/admin/users/{bob.user_key}"
        ended = (await running.plugin.sessions.list_for(bob))[0].handle
        return await forms_for(
            browser,
            *("/", "/nowhere", "/account", "/account/sessions", "/account/sessions/end-others"),
            *(f"/account/sessions/{handle}/end", "/admin", "/admin/audit", of_bob, f"{of_bob}/disable", f"{of_bob}/sign-out"),
            f"{of_bob}/sessions/{ended}/end",
        )


async def test_every_form_names_the_user_of_its_page(running: Running) -> None:
    async with running.browser() as browser:
        forms = await forms_of_every_page(running, browser)
        admin = next(user for user in await running.services.users.search() if user.subject == "admin")
        assert {action.rpartition("/")[2] for action, _ in forms} == {
            *("visits", "theme", "preferences", "regenerate", "end", "end-others", "enable", "act-as", "disable", "sign-out")
        }
        assert [action for action, hidden in forms if hidden.get("seen_user") != admin.key] == []


async def test_a_form_that_is_sent_after_the_session_ended_is_reported_as_not_carried_out(running: Running) -> None:
    async with running.browser() as browser:
        forms = await forms_of_every_page(running, browser)
        await browser.post("/auth/logout")
        before = (await running.plugin.sessions.stats()).total
        for action, hidden in forms:
            answer = await browser.post(action, data={**hidden, **TYPED}, headers={"referer": "http://localhost:8000/account"})
            assert answer.status_code == 401, action
            assert "<h1>The session has ended</h1>" in answer.text
            assert "milk and bread" in answer.text
            assert hidden["seen_user"] not in answer.text
            assert 'href="/auth/login?next=/account">Log in' in answer.text
            assert not any("session-8000" in value for value in answer.headers.get_list("set-cookie"))
        assert (await running.plugin.sessions.stats()).total == before


async def test_a_form_is_not_carried_out_for_a_user_who_logged_in_since(running: Running) -> None:
    async with running.browser() as browser:
        await running.log_in(browser)
        forms = await forms_for(browser, "/", "/account")
        await running.log_in(browser, "bob")
        for action, hidden in forms:
            answer = await browser.post(action, data={**hidden, **TYPED})
            assert answer.status_code == 409, action
            assert "<h1>Another user is logged in now</h1>" in answer.text
            assert "milk and bread" in answer.text
        data = (await browser.get("/api/session")).json()
        assert (data["visits"], data["note"], data["theme"]) == (0, "", "light")


async def test_the_forms_of_a_visitor_work_before_and_after_a_login(running: Running) -> None:
    async with running.browser() as browser:
        forms = await forms_for(browser, "/")
        assert {hidden.get("seen_user", "") for _, hidden in forms} == {""}
        for action, hidden in forms:
            assert (await browser.post(action, data={**hidden, **TYPED})).status_code == 303, action
        assert (await browser.get("/api/session")).json()["note"] == "milk and bread"
        await running.log_in(browser)
        note = {**TYPED, "note": "tea", "seen_user": ""}
        assert (await browser.post("/session/preferences", data=note)).status_code == 303
        assert (await browser.get("/api/session")).json()["note"] == "tea"
