"""Hostile authorization responses over real HTTP, in browsers without a session, with an anonymous and with another user's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from session_core.testing import FakeClock
from tests.security.rejection import BEFORE, assert_all_rejected, assert_rejected, prepare
from tests.security.site import Site
from tests.support.hostile_op.browser import Browser, Page
from tests.support.hostile_op.http_server import MARK
from tests.support.hostile_op.misbehaviour import Misbehaviour
from tests.support.hostile_op.provider import HostileOp
from tests.support.hostile_op.signing import GONE

pytestmark = pytest.mark.anyio


def params_of(address: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(address).query))


def changed_address(address: str, **changes: Any) -> str:
    params = {name: value for name, value in {**params_of(address), **changes}.items() if value is not GONE}
    return f"{address.partition('?')[0]}?{urlencode(params)}"


def with_changes(site: Site, change: Callable[[str], str]) -> Callable[[Browser], Awaitable[Page]]:
    """Log in up to the provider, then return to a modified callback URL."""

    async def attempt(browser: Browser) -> Page:
        return await site.come_back(browser, change(await site.response_address(browser)))

    return attempt


@pytest.mark.attack("1")
@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (GONE, "state_missing"),
        ("", "state_missing"),
        ("A" * 43, "state_unknown"),
        (f"../../{MARK}", "state_malformed"),
        (MARK * 2000, "parameters_too_large"),
    ],
    ids=["missing", "empty", "unknown", "malformed", "huge"],
)
async def test_a_state_without_a_login_is_rejected(site: Site, state: Any, reason: str) -> None:
    await assert_all_rejected(site, with_changes(site, lambda address: changed_address(address, state=state)), reason, status=400)
    assert site.op.count("/token") == 0


@pytest.mark.attack("2")
@pytest.mark.parametrize("state", BEFORE)
async def test_a_replayed_state_is_rejected(site: Site, state: str) -> None:
    browser, thief = site.browser(), site.browser()
    address = await site.response_address(browser)
    browser.jar.copy_to(thief.jar)
    assert (await site.come_back(browser, address)).status == 200
    before = await prepare(site, thief, state)
    await assert_rejected(site, thief, await site.come_back(thief, address), before, "state_replayed")
    assert site.op.count("/token") == 1
    assert await site.who(browser) == "alice"


@pytest.mark.attack("3")
@pytest.mark.parametrize("open_login", [False, True], ids=["no login open", "a login open"])
async def test_login_csrf_is_rejected(site: Site, open_login: bool) -> None:
    """The attacker's response, state and code, in the victim's browser."""
    address = await site.response_address(site.browser())

    async def attempt(victim: Browser) -> Page:
        if open_login:
            await site.response_address(victim)
        return await site.come_back(victim, address)

    await assert_all_rejected(site, attempt, "state_unknown")
    assert site.op.count("/token") == 0


@pytest.mark.attack("4")
@pytest.mark.parametrize("order", [1, -1], ids=["in order", "in reverse"])
async def test_logins_in_ten_tabs_all_complete(site: Site, order: int) -> None:
    browser = site.browser()
    addresses = [await site.response_address(browser, path=f"/auth/login?next=/%3Ftab={number}") for number in range(10)]
    for number in range(10)[::order]:
        page = await site.come_back(browser, addresses[number])
        assert (page.status, page.url) == (200, f"{site.url}/?tab={number}")
    assert site.reasons() == []


@pytest.mark.attack("4")
async def test_interleaved_logins_of_two_users_in_two_tabs_complete(site: Site) -> None:
    browser = site.browser()
    first = await site.response_address(browser)
    site.op.user = "bob"
    second = await site.response_address(browser)
    await site.come_back(browser, first)
    assert await site.who(browser) == "alice"
    await site.come_back(browser, second)
    assert await site.who(browser) == "bob"
    assert len(await site.stored()) == 1


@pytest.mark.attack("5")
async def test_the_state_of_one_tab_with_the_code_of_another_is_rejected(site: Site) -> None:
    async def attempt(browser: Browser) -> Page:
        first, second = await site.response_address(browser), await site.response_address(browser)
        return await site.come_back(browser, changed_address(first, code=params_of(second)["code"]))

    await assert_all_rejected(site, attempt, "invalid_grant")


@pytest.mark.attack("6")
@pytest.mark.parametrize("name", ["code", "state", "iss", "error"])
async def test_a_repeated_parameter_is_rejected(site: Site, name: str) -> None:
    def twice(address: str) -> str:
        extra = urlencode([(name, params_of(address).get(name, MARK)), (name, MARK)])
        return f"{address}&{extra}"

    await assert_all_rejected(site, with_changes(site, twice), "parameter_repeated", status=400)
    assert site.op.count("/token") == 0


@pytest.mark.attack("7")
@pytest.mark.parametrize("issuer", [f"https://{MARK}.example", "", "slash", "upper"])
async def test_the_issuer_of_another_provider_is_rejected(site: Site, issuer: str) -> None:
    said = {"slash": f"{site.op.issuer}/", "upper": site.op.issuer.upper()}.get(issuer, issuer)
    await assert_all_rejected(site, Misbehaviour(response={"iss": said}), "iss_mismatch", status=400)
    assert site.op.count("/token") == 0


@pytest.mark.attack("8")
async def test_a_missing_issuer_is_rejected_when_the_provider_always_sends_it(site: Site) -> None:
    await assert_all_rejected(site, Misbehaviour(response={"iss": GONE}), "iss_missing", status=400)
    assert site.op.count("/token") == 0


@pytest.mark.attack("9")
@pytest.mark.attack("asvs-10.2.2")
async def test_mix_up_between_two_providers_is_rejected(site: Site, clock: FakeClock) -> None:
    """RFC 9700 4.4: neither provider receives the other's code."""
    async with HostileOp(lambda: clock.now() / 1000) as other:
        response = {"iss": other.issuer, "code": "code-of-the-other-provider"}
        await assert_all_rejected(site, Misbehaviour(response=response), "iss_mismatch")
        assert other.calls == []
    assert site.op.count("/token") == 0


@pytest.mark.attack("10")
async def test_an_error_with_a_wrong_state_leaves_the_login_open(site: Site) -> None:
    for state in BEFORE:
        browser = site.browser()
        address = await site.response_address(browser)
        before = await prepare(site, browser, state)
        page = await site.come_back(browser, f"{site.callback}?error=access_denied&state={'B' * 43}")
        await assert_rejected(site, browser, page, before, "state_unknown", status=400)
        assert (await site.come_back(browser, address)).status == 200
        assert await site.who(browser) == "alice"


@pytest.mark.attack("10")
async def test_an_error_with_the_right_state_consumes_the_login(site: Site) -> None:
    async def denied(browser: Browser) -> Page:
        thief = site.browser()
        address = await site.response_address(browser, Misbehaviour(response={"error": "access_denied", "code": GONE}))
        browser.jar.copy_to(thief.jar)
        page = await site.come_back(browser, address)
        assert not [name for name in browser.jar.names() if name.startswith("login-")]
        again.append((thief, changed_address(address, error=GONE, code="code-of-another-login")))
        return page

    again: list[tuple[Browser, str]] = []
    await assert_all_rejected(site, denied, "access_denied", status=400)
    for thief, address in again:
        assert (await site.come_back(thief, address)).status == 400
    assert site.reasons().count("state_replayed") == len(BEFORE)
    assert site.op.count("/token") == 0


@pytest.mark.attack("11")
@pytest.mark.parametrize(
    "text",
    [
        f"<script>{MARK}</script>",
        f"a\r\nSet-Cookie: {MARK}=1\r\n\r\n{MARK}",
        f"\u202e{MARK}\u2066",
        f"{{{{{MARK}}}}}",
        MARK * 100,
    ],
    ids=["html", "crlf", "bidi", "template", "long"],
)
async def test_the_error_text_is_not_repeated_anywhere(site: Site, text: str) -> None:
    said = {"error": text, "error_description": text, "error_uri": f"https://evil.example/{text}", "code": GONE}
    await assert_all_rejected(site, Misbehaviour(response=said), "provider_error", status=400)


@pytest.mark.attack("12")
@pytest.mark.attack("asvs-7.6.2")
async def test_logins_started_by_another_site_do_not_affect_the_users_own(site: Site) -> None:
    browser = site.browser()
    evil = browser.tab("https://evil.example/")
    for load in (evil.frame, evil.image, evil.fetch):
        assert (await load(f"{site.url}/auth/login")).status == 403
    assert browser.jar.names() == []
    browser.stop_at = site.callback
    for _ in range(25):
        await browser.tab("https://evil.example/").follow(f"{site.url}/auth/login")
        site.clock.advance(seconds=1)
    assert len(browser.jar.names()) == 10
    assert await site.stored() == {}
    # The user's own login still completes.
    browser.stop_at = None
    assert (await site.login(browser)).status == 200
    assert await site.who(browser) == "alice"


@pytest.mark.attack("13")
async def test_the_same_response_fifty_times_at_once_logs_in_once(site: Site) -> None:
    browser = site.browser()
    address = await site.response_address(browser)
    copies = [site.browser() for _ in range(50)]
    for copy in copies:
        browser.jar.copy_to(copy.jar)
    pages = await asyncio.gather(*(site.come_back(copy, address) for copy in copies))
    assert sorted(page.status for page in pages) == [200] + [400] * 49
    assert site.op.count("/token") == 1
    assert len(await site.stored()) == 1
    assert site.reasons() == ["state_replayed"] * 49


@pytest.mark.attack("14")
@pytest.mark.parametrize("state", BEFORE)
async def test_a_login_started_ten_minutes_ago_is_rejected(site: Site, state: str) -> None:
    browser = site.browser()
    address = await site.response_address(browser)
    kept = site.browser()
    browser.jar.copy_to(kept.jar)
    for cookie in kept.jar._cookies.values():
        cookie.expires_at = None  # a client that keeps expired cookies
    site.clock.advance(seconds=600)
    before = await prepare(site, kept, state)
    await assert_rejected(site, kept, await site.come_back(kept, address), before, "state_expired", status=400)
    assert site.op.count("/token") == 0


@pytest.mark.attack("16")
@pytest.mark.attack("asvs-10.1.2")
@pytest.mark.attack("asvs-10.2.1")
async def test_a_stolen_code_in_another_browser_is_rejected(site: Site) -> None:
    """The attacker has the code and another login; only the victim's browser has the code's PKCE verifier."""

    async def attempt(thief: Browser) -> Page:
        stolen = params_of(await site.response_address(site.browser()))["code"]
        return await site.come_back(thief, changed_address(await site.response_address(thief), code=stolen))

    await assert_all_rejected(site, attempt, "invalid_grant")


@pytest.mark.attack("57")
async def test_forged_host_headers_do_not_change_redirects(site: Site) -> None:
    spoofed = {"x-forwarded-host": "evil.example", "x-forwarded-proto": "https", "forwarded": "host=evil.example;proto=https"}
    browser = site.browser()
    browser.stop_at = site.callback
    for headers in (spoofed, {"host": "evil.example"}):
        await browser.tab(f"{site.url}/").follow("/auth/login", **headers)
        assert site.op.last("/authorize").query["redirect_uri"] == site.callback
