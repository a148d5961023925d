"""Forged and genuine logout requests, and what remains after a logout."""

from __future__ import annotations

from typing import Any

import pytest

from session_core.testing import FakeClock
from tests.security.conftest import StartSite
from tests.security.site import Site
from tests.support.hostile_op import http_server as faults
from tests.support.hostile_op.browser import Browser
from tests.support.hostile_op.http_server import MARK
from tests.support.hostile_op.logout import EVENT, deliver, logout_token
from tests.support.hostile_op.provider import CONFIGURATION, HostileOp
from tests.support.hostile_op.signing import GONE, by_secret, signing_key, unsigned

pytestmark = pytest.mark.anyio

NOW = 4_102_444_800

BAD: list[tuple[dict[str, Any], str]] = [
    ({"claims": {"nonce": MARK}}, "nonce_present"),
    ({"claims": {"events": GONE}}, "events_missing"),
    ({"claims": {"events": {f"urn:{MARK}": {}}}}, "events_missing"),
    ({"claims": {"events": [EVENT]}}, "events_missing"),
    ({"claims": {"events": {EVENT: True}}}, "events_missing"),
    ({"claims": {"sid": GONE, "sub": GONE}}, "sub_and_sid_missing"),
    ({"forge": unsigned}, "token_form"),
    ({"forge": by_secret(b"published")}, "alg_not_allowed"),
    ({"key": signing_key("RS256", 2)}, "bad_signature"),
    ({"claims": {"aud": MARK}}, "aud_mismatch"),
    ({"claims": {"iss": f"https://{MARK}"}}, "iss_mismatch"),
    ({"claims": {"iat": NOW - 600}}, "iat_too_old"),
    ({"claims": {"exp": NOW - 60}}, "expired"),
    ({"claims": {"exp": GONE}}, "exp_missing"),
    ({"claims": {"jti": GONE}}, "jti_missing"),
    ({"header": {"typ": "JWT"}}, "typ_header"),
    ({"header": {"typ": GONE}}, "typ_header"),
]


@pytest.mark.attack("44")
@pytest.mark.attack("asvs-10.5.5")
async def test_a_bad_logout_token_ends_no_session(site: Site) -> None:
    browser = site.browser()
    await site.login(browser)
    before = await site.stored()
    for changes, reason in BAD:
        events = len(site.events)
        response = await deliver(site.op, logout_token(site.op, **changes))
        assert response.status_code == 400, reason
        assert response.headers["cache-control"] == "no-store"
        assert "set-cookie" not in response.headers
        told = [(event.name, event.reason) for event in site.events[events:]]
        assert told == [("logout.rejected", reason)]
        assert MARK not in response.text + repr(site.events)
    id_token = max((secret for secret in site.op.secrets if secret.startswith("eyJ")), key=len)
    assert (await deliver(site.op, id_token)).status_code == 400
    assert await site.stored() == before
    assert await site.who(browser) == "alice"


@pytest.mark.attack("44")
async def test_a_replayed_logout_token_is_rejected(site: Site) -> None:
    browser = site.browser()
    await site.login(browser)
    token = logout_token(site.op)
    assert (await deliver(site.op, token)).status_code == 200
    site.clock.advance(seconds=1)
    await site.login(browser)
    assert (await deliver(site.op, token)).status_code == 400
    assert await site.who(browser) == "alice"
    assert site.reasons("logout.rejected") == ["jti_replayed"]


@pytest.mark.attack("45")
async def test_a_logout_token_ends_the_sessions_it_names(site: Site, clock: FakeClock) -> None:
    first, second, bob = (site.browser() for _ in range(3))
    await site.login(first)
    site.op.sid = "op-session-2"
    await site.login(second)
    site.op.user = "bob"
    await site.login(bob)

    async def who() -> list[str | None]:
        return [await site.who(each) for each in (first, second, bob)]

    assert (await deliver(site.op, logout_token(site.op, claims={"sid": "of-no-session", "sub": GONE}))).status_code == 200
    assert await who() == ["alice", "alice", "bob"]
    async with HostileOp(lambda: clock.now() / 1000) as other:
        other.backchannel_uri = site.op.backchannel_uri
        assert (await deliver(other, logout_token(other))).status_code == 400
        await site.plugin.sessions.end_op_session(other.issuer, "op-session-1")
    assert await who() == ["alice", "alice", "bob"]
    assert (await deliver(site.op, logout_token(site.op, claims={"sid": GONE, "sub": "alice"}))).status_code == 200
    assert await who() == [None, None, "bob"]


@pytest.mark.attack("46")
async def test_a_malformed_logout_request_is_rejected(site: Site) -> None:
    browser = site.browser()
    await site.login(browser)
    token = logout_token(site.op)
    form = {"content-type": "application/x-www-form-urlencoded"}
    requests: list[dict[str, Any]] = [
        {"data": None, "json": {"logout_token": token}},
        {"data": {"logout_token": "x" * 1_000_000}},
        {"data": None, "content": f"logout_token={token}&logout_token={token}", "headers": form},
        {"data": None, "content": f"logout_token={token}"},
        {"data": None, "params": {"logout_token": token}},
    ]
    for request in requests:
        response = await deliver(site.op, token, **request)
        assert 400 <= response.status_code < 500
        assert response.headers["cache-control"] == "no-store"
        assert "set-cookie" not in response.headers
    by_get = await browser.tab(f"{site.op.issuer}/").follow(f"{site.op.backchannel_uri}?logout_token={token}")
    assert (by_get.status, by_get.headers["cache-control"]) == (405, "no-store")
    assert "set-cookie" not in by_get.headers
    assert await site.who(browser) == "alice"


@pytest.mark.attack("47")
@pytest.mark.attack("asvs-3.5.1")
@pytest.mark.attack("asvs-3.5.3")
async def test_another_site_cannot_log_a_user_out(site: Site) -> None:
    browser = site.browser()
    await site.login(browser)
    evil = browser.tab("https://evil.example/")
    assert (await evil.submit(f"{site.url}/auth/logout", user=False)).status == 403
    assert (await evil.follow(f"{site.url}/auth/logout")).status == 405
    assert (await browser.tab("https://evil.example/").image(f"{site.url}/auth/logout")).status == 405
    # A cookie sent in spite of SameSite does not change this.
    for cookie in browser.jar._cookies.values():
        cookie.same_site = "none"
    assert (await browser.tab("https://evil.example/").submit(f"{site.url}/auth/logout")).status == 403
    assert await site.who(browser) == "alice"


@pytest.mark.attack("48")
@pytest.mark.parametrize("known", [True, False], ids=["known before", "never reached"])
async def test_a_logout_succeeds_while_the_provider_is_down(start_site: StartSite, op: HostileOp, known: bool) -> None:
    if not known:
        op.faults[CONFIGURATION] = faults.hang_up
    async with start_site(op=op) as site:
        browser = site.browser()
        await (site.login(browser) if known else site.enter(browser, "alice"))
        assert await site.who(browser) == "alice"
        op.faults = dict.fromkeys((CONFIGURATION, "/token", "/revoke", "/jwks"), faults.hang)
        op.faults["/end_session"] = answered = faults.answers(200)
        page = await browser.tab(f"{site.url}/").submit("/auth/logout")
        assert answered is op.faults["/end_session"]
        assert page.status == 200
        assert await site.stored() == {}
        assert await site.who(browser) is None


@pytest.mark.attack("49")
@pytest.mark.attack("asvs-7.4.1")
@pytest.mark.attack("asvs-14.3.1")
async def test_back_after_logout_shows_nothing(site: Site) -> None:
    browser = site.browser()
    tab = browser.tab()
    await tab.open(f"{site.url}/")
    await tab.follow("/auth/login?next=/account")
    shown = await tab.follow("/account")
    assert "alice@example.org" in shown.text
    assert not shown.is_stored
    ended = await tab.submit("/auth/logout")
    assert site.url in ended.cleared
    for _ in range(3):
        page = await tab.back()
        assert "alice@example.org" not in page.text
        assert "Log out" not in page.text


@pytest.mark.attack("49")
async def test_a_cacheable_page_is_restored_by_the_simulated_browser() -> None:
    """The premise of the test above: without no-store and Clear-Site-Data, Back restores the page without a request."""
    async with HostileOp(lambda: float(NOW)) as op:
        browser = Browser(lambda: float(NOW))
        op.faults = {"/first": faults.answers(200, "first"), "/second": faults.answers(200, "second")}
        tab = browser.tab()
        await tab.open(f"{op.issuer}/first")
        await tab.follow("/second")
        assert (await tab.back()).text == "first"
        assert op.count("/first") == 1
        await browser.close()
