"""Error pages keep user, theme and navigation, explain the error and what to do, and preserve typed text."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import httpx
import pytest

from app.data.database import DatabaseUnavailableError
from app.ops.log import configure_logging
from app.session_data import AppSession
from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError, TooManyRequestsError
from session_core.sessions.handle import SessionHandle
from session_core.testing import FakeClock
from tests.app.conftest import Running, Start
from tests.security.site import running_site
from tests.support.hostile_op.misbehaviour import Misbehaviour
from tests.support.hostile_op.signing import GONE
from tests.support.postgres_server import postgres_server

pytestmark = pytest.mark.anyio

UNKNOWN = "This login has expired, or was started in another browser"
FAILED = "The login could not be completed"
NAVIGATION = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


async def dark(running: Running, browser: httpx.AsyncClient, subject: str = "alice", *roles: str) -> str:
    """Log in and choose a theme that shows whether the session was read."""
    data = AppSession(theme="dark", theme_chosen=True)
    return (await running.log_in(browser, subject, roles=roles or ("user",), data=data)).user_key


def has_user_theme_and_navigation(page: str, name: str = "Alice") -> bool:
    return f'<bdi class="who">{name}</bdi>' in page and 'data-theme="dark"' in page and "Log out" in page


async def test_a_page_that_does_not_exist_keeps_user_theme_and_navigation(running: Running) -> None:
    async with running.browser() as browser, running.browser() as visitor:
        await dark(running, browser)
        page = (await browser.get("/nowhere")).text
        assert has_user_theme_and_navigation(page)
        assert 'href="/account"' in page
        bare = (await visitor.get("/nowhere")).text
        assert 'href="/auth/login?next=/nowhere"' in bare
        assert (await running.plugin.sessions.stats()).total == 1


async def test_a_missing_role_is_named_with_a_link_to_log_in_as_another_user(running: Running) -> None:
    async with running.browser() as browser:
        await dark(running, browser)
        answer = await browser.get("/admin")
        assert answer.status_code == 403
        assert has_user_theme_and_navigation(answer.text)
        assert "needs the role “admin”" in answer.text
        assert re.search(r'action="/auth/logout"><button class="primary">Log out', answer.text)


async def test_a_disabled_account_is_named_as_the_reason(running: Running) -> None:
    async with running.browser() as browser:
        key = await dark(running, browser)
        await running.services.users.set_disabled(key, disabled=True)
        answer = await browser.get("/account")
        assert answer.status_code == 403
        assert "<h1>This account is disabled</h1>" in answer.text
        assert has_user_theme_and_navigation(answer.text)
        assert 'href="/account"' not in answer.text


async def test_an_administrator_cannot_change_their_own_account_and_sees_why(running: Running) -> None:
    async with running.browser() as browser:
        key = await dark(running, browser, "root", "admin")
        answer = await browser.get(f"/admin/users/{key}/disable")
        assert answer.status_code == 403
        assert "You cannot do this to your own account" in answer.text
        assert "Try again" not in answer.text
        assert has_user_theme_and_navigation(answer.text, "Root")


async def test_a_page_offers_to_try_again_only_where_that_can_help(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running.browser() as browser:
        await dark(running, browser)
        wrong = await browser.get("/session/visits")
        assert wrong.status_code == 405
        assert "Try again" not in wrong.text
        sent = await browser.post("/session/preferences", data={"language": "?"}, headers={"referer": "http://localhost:8000/"})
        assert sent.status_code == 400
        assert 'href="/">Back to the page' in sent.text

        async def broken(*_: object) -> None:
            raise RuntimeError

        monkeypatch.setattr(type(running.services), "require_user", broken)
        failed = await browser.get("/account")
        assert failed.status_code == 500
        assert 'href="/account">Try again' in failed.text


async def test_a_cross_site_form_is_refused_and_explained(running: Running) -> None:
    async with running.browser() as browser:
        await dark(running, browser)
        foreign = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
        answer = await browser.post("/session/preferences", data={"language": "de", "note": "planted"}, headers=foreign)
        assert answer.status_code == 403
        assert "came from a page of another site" in answer.text
        assert "planted" not in answer.text


async def test_an_expired_session_leads_to_the_login_and_keeps_the_text(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running.browser() as browser:
        await dark(running, browser)
        fail(monkeypatch, SessionGoneError())
        page = await save(browser, "milk and bread", referer="http://localhost:8000/?x=1")
        assert page.status_code == 401
        assert "milk and bread" in page.text
        assert 'href="/auth/login?next=/%3Fx%3D1">Log in' in page.text
        assert "Log out" not in page.text


@pytest.mark.parametrize(
    ("error", "status", "words", "is_refused"),
    [
        (StoreUnavailableError(), 503, "You are not logged out", False),
        (DatabaseUnavailableError(), 503, "You are not logged out", False),
        (TooManyRequestsError(7), 429, "Please wait 7 seconds", True),
        (RuntimeError("broken"), 500, "An error occurred on our side", False),
    ],
)
async def test_typed_text_is_kept_and_only_a_refusal_says_that_nothing_was_changed(
    running: Running, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, words: str, *, is_refused: bool
) -> None:
    async with running.browser() as browser:
        await dark(running, browser)
        fail(monkeypatch, error)
        page = await save(browser, "<b>milk</b> and bread")
        assert page.status_code == status
        assert words in page.text
        assert "&lt;b&gt;milk&lt;/b&gt; and bread" in page.text
        # An outage can lose the answer to a change that was made, and a handler can fail after one.
        assert ("It was not carried out" in page.text) is is_refused
        assert ("othing was changed" in page.text) is is_refused
        assert ("It is not known whether what you sent was carried out" in page.text) is not is_refused
        assert "try again shortly" not in page.text  # sending it again may do it twice
        if not isinstance(error, DatabaseUnavailableError):
            assert has_user_theme_and_navigation(page.text)


async def test_a_logout_that_an_outage_stops_claims_neither_logout_nor_login(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running.browser() as browser:
        await dark(running, browser)

        async def out(*_: object) -> None:
            raise StoreUnavailableError

        monkeypatch.setattr(type(running.plugin.store), "load", out)
        page = await browser.post("/auth/logout")
        assert page.status_code == 503
        assert "You may still be logged in" in page.text
        assert "You are not logged out" not in page.text


async def test_an_outage_page_is_minimal_and_mentions_no_logout(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running.browser() as browser:
        await dark(running, browser)

        async def out(*_: object) -> None:
            raise StoreUnavailableError

        monkeypatch.setattr(type(running.plugin.store), "load", out)
        for path in ("/account", "/"):
            answer = await browser.get(path)
            assert answer.status_code == 503
            assert "You are not logged out" in answer.text
            assert f'href="{path}">Try again' in answer.text
            assert 'href="/auth/login' not in answer.text
            assert "set-cookie" not in answer.headers


async def test_a_logged_in_user_is_not_asked_to_log_in_while_the_database_is_out(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def out(*_: object) -> None:
        raise DatabaseUnavailableError

    async with running.browser() as browser, running.browser() as visitor:
        await dark(running, browser)
        monkeypatch.setattr(type(running.services.users), "find", out)
        page = (await browser.get("/account")).text
        assert "The user database does not respond. You are not logged out" in page
        assert "/auth/login" not in page
        assert "Log out</button>" in page
        assert "/auth/login" in (await visitor.get("/nowhere")).text


async def test_a_provider_outage_is_explained(start: Start) -> None:
    async with start() as running, running.browser() as browser:
        await dark(running, browser)
        answer = await browser.get("/auth/login?next=/account", headers=NAVIGATION)
        assert answer.status_code == 503
        assert "<h1>The identity provider is unavailable</h1>" in answer.text
        assert "An earlier session is unaffected" in answer.text
        assert 'href="/auth/login?next=%2Faccount">Try again' in answer.text
        assert has_user_theme_and_navigation(answer.text)
        assert (await browser.get("/account")).status_code == 200


async def test_logins_that_fail_together_lead_each_to_its_own_page(start: Start) -> None:
    pages = ("account", "admin", "orders")
    async with start() as running, running.browser() as browser:
        await dark(running, browser)
        answers = await asyncio.gather(*(browser.get(f"/auth/login?next=/{page}", headers=NAVIGATION) for page in pages))
        for page, answer in zip(pages, answers, strict=True):
            assert answer.status_code == 503
            assert f'href="/auth/login?next=%2F{page}">Try again' in answer.text


@pytest.mark.parametrize(
    ("fault", "title", "advice", "again"),
    [
        ("late", "This login has expired", "It took longer than ten minutes", "/auth/login?next=%2Faccount"),
        ("another browser", UNKNOWN, "ends in the browser in which it began", "/auth/login"),
        ("no cookies", UNKNOWN, "Your browser sent no cookie", "/auth/login"),
        ("cancelled", "The login was cancelled at the identity provider", "You pressed Cancel", "/auth/login?next=%2Faccount"),
        ("wrong nonce", FAILED, "this page does not say which", "/auth/login?next=%2Faccount"),
        ("provider error", FAILED, "reported an error, or a check failed", "/auth/login?next=%2Faccount"),
    ],
)
async def test_a_failed_login_says_what_happened_and_can_begin_again(
    database: Path, clock: FakeClock, fault: str, title: str, advice: str, again: str
) -> None:
    misbehaviour = {
        "cancelled": Misbehaviour(response={"error": "access_denied", "code": GONE}),
        "provider error": Misbehaviour(response={"error": "server_error", "code": GONE}),
        "wrong nonce": Misbehaviour(claims={"nonce": "another"}),
    }
    async with running_site(database, clock) as site:
        browser = site.browser()
        if fault != "no cookies":
            await site.begin_anonymous(browser)
        starting = browser if fault in {"late", *misbehaviour} else site.browser()
        address = await site.response_address(starting, misbehaviour.get(fault), path="/auth/login?next=/account")
        if fault == "late":
            clock.advance(minutes=11)
        page = await site.come_back(browser, address)
        assert page.status == 400
        assert f"<h1>{title}</h1>" in page.text
        assert advice in page.text
        assert ("Your browser sent no cookie" in page.text) is (fault == "no cookies")
        assert f'href="{again}">Try again' in page.text
        assert re.search(r"reference: <code>[0-9a-f]+</code>", page.text)
        assert await site.who(browser) is None


async def test_an_outage_of_the_database_is_no_refused_login_and_a_new_login_works(database: Path, clock: FakeClock) -> None:
    with postgres_server() as server:
        async with running_site(database, clock, database_url=server.url_through(server.port)) as site:
            browser = site.browser()
            address = await site.response_address(browser, path="/auth/login?next=/account")
            server.kill()
            page = await site.come_back(browser, address)
            assert page.status == 503
            assert site.reasons() == ["database_unavailable"]
            assert "The user database does not respond. You are not logged out" in page.text
            # The response of the provider is used up: loading it again would fail.
            assert 'href="/auth/login?next=%2Faccount">Try again' in page.text
            server.start()
            assert (await site.login(browser, path="/auth/login?next=/account")).status == 200


async def test_a_refused_login_can_be_repeated_as_another_user(database: Path, clock: FakeClock) -> None:
    async with running_site(database, clock) as site:
        browser = site.browser()
        await site.login(browser)
        (alice,) = await site.services.users.search()
        await site.services.users.set_disabled(alice.key, disabled=True)
        other = site.browser()
        page = await site.login(other, path="/auth/login?next=/account")
        assert page.status == 403
        assert "<h1>This account is disabled</h1>" in page.text
        # Without `prompt` the provider would choose the same account again.
        assert 'href="/auth/login?next=%2Faccount&amp;prompt=login">Log in as another user' in page.text
        assert "Log in as another user" not in (await browser.tab(f"{site.url}/").follow("/account")).text
        await site.services.audit.flush()
        (refused,) = [entry for entry in await site.services.audit.of_user(alice.key) if entry.event == "login.failed"]
        assert refused.reason == "account_disabled"


async def test_a_slow_database_does_not_delay_an_error_page(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async def frozen(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("app.web.errors._PATIENCE", 0.01)
    async with running.browser() as browser:
        await dark(running, browser)
        monkeypatch.setattr(type(running.services.users), "find", frozen)
        answer = await browser.get("/nowhere")
        assert answer.status_code == 404
        assert 'data-theme="dark"' in answer.text


@pytest.mark.parametrize("path", ["/nowhere", "/admin", "/auth/callback?state=unknown&code=secret-code"])
async def test_the_error_reference_on_the_page_is_in_the_log(start: Start, capsys: pytest.CaptureFixture[str], path: str) -> None:
    async with start() as running, running.browser() as browser:
        configure_logging(level="INFO", as_json=True)
        await running.log_in(browser)
        capsys.readouterr()
        page = (await browser.get(path)).text
        entries = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    reference = re.search(r"reference: <code>([^<]+)</code>", page)
    assert reference is not None
    said = [entry for entry in entries if entry["event"] == "error answered"]
    assert [entry["request_id"] for entry in said] == [reference[1]]
    assert said[0]["error"] in {"NotFoundException", "forbidden", "authorization_response"}
    assert "secret-code" not in page


async def test_two_tabs_that_change_different_fields_both_succeed(running: Running) -> None:
    async with running.browser() as browser:
        await browser.post("/session/preferences", data={"language": "en", "note": "old"})
        seen = {"seen_language": "en", "seen_note": "old"}
        await browser.post("/session/preferences", data={**seen, "language": "de", "note": "old"})
        await browser.post("/session/preferences", data={**seen, "language": "en", "note": "new"})
        data = (await browser.get("/api/session")).json()
        assert (data["language"], data["note"]) == ("de", "new")


async def test_two_tabs_that_change_the_same_note_conflict_and_see_both_texts(running: Running) -> None:
    async with running.browser() as browser:
        await browser.post("/session/preferences", data={"language": "en", "note": "one\r\ntwo"})
        seen = {"language": "en", "seen_language": "en", "seen_note": "one\r\ntwo"}
        assert (await browser.post("/session/preferences", data={**seen, "note": "first tab"})).status_code == 303
        answer = await browser.post("/session/preferences", data={**seen, "note": "second tab"})
        assert answer.status_code == 409
        assert "The change was not saved: another tab changed the same value first" in answer.text
        assert answer.text.index("The change was not saved") < answer.text.index("<h1>"), "out of sight on a phone"
        assert 'href="#edit">What you typed is kept.' in answer.text
        assert ">second tab</textarea>" in answer.text
        assert "“first tab”" in answer.text
        assert (await browser.get("/api/session")).json()["note"] == "first tab"
        again = {**seen, "seen_note": "first tab", "note": "second tab"}
        assert (await browser.post("/session/preferences", data=again)).status_code == 303
        assert (await browser.get("/api/session")).json()["note"] == "second tab"


async def test_concurrent_changes_of_the_note_conflict_and_keep_the_text(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running.browser() as browser:
        await running.log_in(browser)
        fail(monkeypatch, SessionConflictError(fields=("note",)))
        answer = await save(browser, "mine")
        assert answer.status_code == 409
        assert ">mine</textarea>" in answer.text


def fail(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Make the next save of a session fail."""

    async def save(self: SessionHandle[AppSession]) -> None:
        del self
        raise error

    monkeypatch.setattr(SessionHandle, "save", save)


async def save(browser: httpx.AsyncClient, note: str, referer: str = "http://localhost:8000/") -> httpx.Response:
    form = {"language": "en", "note": note}
    return await browser.post("/session/preferences", data=form, headers={"referer": referer})
