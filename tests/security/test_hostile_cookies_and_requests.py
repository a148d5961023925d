"""Planted ids and cookies, pages of other sites, and open redirects, tested with a simulated browser."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from session_core import Identity
from tests.security.site import Site
from tests.support.hostile_op.misbehaviour import Misbehaviour

pytestmark = pytest.mark.anyio

HOST = "localhost"


@pytest.mark.attack("38")
@pytest.mark.attack("asvs-7.2.4")
@pytest.mark.parametrize("planted", ["made up", "an anonymous session of the attacker", "a login of the attacker"])
async def test_session_fixation_a_planted_session_is_replaced_at_login(site: Site, planted: str) -> None:
    attacker, victim = site.browser(), site.browser()
    if planted == "made up":
        attacker.jar.toss(site.cookie, "s:" + "A" * 43 + "." + "B" * 43, HOST, host_only=True)
    elif planted.startswith("an anonymous"):
        await site.begin_anonymous(attacker)
    else:
        await site.enter(attacker, "mallory")
        await site.begin_anonymous(attacker)
    attacker.jar.copy_to(victim.jar)
    before = attacker.jar.values(site.cookie)
    assert (await site.login(victim)).status == 200
    assert victim.jar.values(site.cookie) != before
    assert await site.who(victim) == "alice"
    assert await site.who(attacker) is None
    shown = (await victim.tab(f"{site.url}/").fetch("/api/session")).json()
    # An anonymous visitor's data is kept at login; another user's data never is.
    assert shown["note"] == ("before" if planted.startswith("an anonymous") else "")


@pytest.mark.attack("39")
async def test_the_old_id_is_invalid_after_a_regeneration(site: Site) -> None:
    browser, thief = site.browser(), site.browser()
    await site.login(browser)
    browser.jar.copy_to(thief.jar)
    assert (await browser.tab(f"{site.url}/").fetch("/api/session/regenerate", "POST")).status == 204
    assert [await site.who(each) for each in (browser, thief)] == ["alice", None]
    await thief.tab(f"{site.url}/").fetch("/api/session", "PATCH", data={"note": "thief"})
    assert (await browser.tab(f"{site.url}/").fetch("/api/session")).json()["note"] == ""


@pytest.mark.attack("53")
async def test_tossed_cookies_are_never_adopted(site: Site) -> None:
    victim, attacker = site.browser(), site.browser()
    await site.login(victim)
    await site.enter(attacker, "mallory")
    (own,), (foreign,) = victim.jar.values(site.cookie), attacker.jar.values(site.cookie)
    for name, value, path in (
        (site.cookie, "junk", "/api"),
        (site.cookie, "", "/"),
        (site.cookie.title(), foreign, "/"),
        (site.cookie.upper(), foreign, "/api"),
        ("", f"{site.cookie}={foreign}", "/api/me"),
    ):
        victim.jar.toss(name, value, HOST, path=path, host_only=name != site.cookie)
        shown = await site.who(victim)
        # A second valid id makes both invalid, so the victim is not logged in as the attacker.
        assert shown == ("alice" if name else None), name
        victim.jar._cookies = {key: each for key, each in victim.jar._cookies.items() if each.value == own}
    for path in ("/api", "/"):
        victim.jar.toss(site.cookie, foreign, HOST, path=path)
        assert await site.who(victim) != "mallory"
    victim.jar._cookies = {key: each for key, each in victim.jar._cookies.items() if each.value == own}
    assert await site.who(victim) == "alice"


HOSTILE_NEXT = [
    "//evil.example", "/\\evil.example", "\\\\evil.example", "/%09/evil.example", "/\t/evil.example", "/\n/evil.example",
    "https:evil.example", "https://evil.example", "javascript:alert(1)", "//user@evil.example", "/@evil.example/..//",
    "/\uff0f\uff0fevil.example", "/\uff0e\uff0e/", "/%2f%2fevil.example", "/%5cevil.example", "/x?next=//evil.example",
    "/" + "a" * 8192, "/auth/logout", "///evil.example", "/./evil", "%2f%2fevil.example", "/\u202egro", "",
]  # fmt: skip


@pytest.mark.attack("56")
@pytest.mark.attack("asvs-3.7.2")
async def test_a_login_redirects_to_no_other_site(site: Site) -> None:
    for hostile in HOSTILE_NEXT:
        browser = site.browser()
        page = await site.login(browser, path=f"/auth/login?next={quote(hostile, safe='')}")
        if len(hostile) > 5000:
            # Too long for the query string: refused or ignored, but never followed.
            assert page.url.startswith(site.url)
            continue
        assert (page.status, page.url) == (200, f"{site.url}/"), hostile
        assert all(hop.startswith((site.url, site.op.issuer)) for hop in page.hops)
    good = await site.login(site.browser(), path="/auth/login?next=/account")
    assert good.url == f"{site.url}/account"


@pytest.mark.attack("60")
@pytest.mark.attack("asvs-3.2.1")
@pytest.mark.attack("asvs-3.4.2")
@pytest.mark.attack("asvs-3.5.2")
@pytest.mark.attack("asvs-3.5.8")
async def test_another_sites_page_reads_and_changes_nothing(site: Site) -> None:
    browser = site.browser()
    await site.login(browser)
    # As if the browser did not support SameSite, so that only the server decides.
    for cookie in browser.jar._cookies.values():
        cookie.same_site = "none"
    before = await site.stored()
    evil = browser.tab("https://evil.example/")
    for path, method in (("/api/session", "PATCH"), ("/api/session/visits", "POST"), ("/api/sessions", "DELETE")):
        page = await evil.fetch(f"{site.url}{path}", method, data={"note": "x"})
        assert page.status == 403
        assert "access-control-allow-origin" not in page.headers
    assert (await evil.submit(f"{site.url}/session/preferences", {"note": "x"}, user=False)).status == 403
    assert await site.stored() == before
    for page in (await browser.tab("https://evil.example/").fetch(f"{site.url}/api/me"),
                 await browser.tab("https://evil.example/").frame(f"{site.url}/account"),
                 await browser.tab("https://evil.example/").image(f"{site.url}/api/me")):  # fmt: skip
        # The browser withholds the response from the requesting page.
        assert "access-control-allow-origin" not in page.headers
        assert page.headers["cross-origin-resource-policy"] == "same-origin"
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"


@pytest.mark.attack("59")
@pytest.mark.attack("asvs-14.2.2")
@pytest.mark.attack("asvs-14.2.5")
@pytest.mark.attack("asvs-14.3.2")
async def test_responses_for_one_visitor_are_not_cached(site: Site) -> None:
    browser = site.browser()
    await site.login(browser)
    tab = browser.tab(f"{site.url}/")
    for path in ("/account/x.css", "/api/me/a.js", "/account;.css", "/account%2fx.css"):
        page = await tab.follow(path)
        assert page.status == 404
        assert "alice" not in page.text
    for path in ("/", "/account", "/api/me", "/api/session", "/account/sessions", "/auth/login"):
        page = await browser.tab(f"{site.url}/").fetch(path)
        assert "no-store" in page.headers["cache-control"], path
        assert "public" not in page.headers["cache-control"], path
    public = await tab.follow("/static/app.css")
    assert "set-cookie" not in public.headers


@pytest.mark.attack("asvs-10.1.1")
@pytest.mark.attack("asvs-14.3.3")
async def test_the_browser_gets_no_token_and_no_readable_data(site: Site) -> None:
    browser = site.browser()
    await site.login(browser)
    answers = [
        await browser.tab(f"{site.url}/").fetch(path) for path in ("/api/me", "/api/session", "/api/sessions", "/api/userinfo")
    ]
    answers += [await browser.tab(f"{site.url}/").follow(path) for path in ("/", "/account", "/account/sessions")]
    seen = "".join(page.text + repr(page.headers.multi_items()) for page in answers) + repr(browser.jar.ever)
    tokens = [secret for secret in site.op.secrets if secret.startswith(("at-", "rt-", "eyJ"))]
    assert len(tokens) == 3
    assert not [token for token in tokens if token in seen]
    assert "<script>" not in seen
    # The session's id and, during a login, its sealed transaction: neither is readable.
    await site.response_address(browser)
    assert {name.partition("-")[0] for name in browser.jar.names()} == {"session", "login", "last"}
    assert "alice" not in repr(browser.jar.ever)


@pytest.mark.attack("asvs-7.4.4")
async def test_every_page_that_needs_a_login_has_a_logout_button(site: Site) -> None:
    browser = site.browser()
    await site.login(browser)
    for path in ("/", "/account", "/account/sessions"):
        page = await browser.tab(f"{site.url}/").follow(path)
        assert page.status == 200
        assert 'method="post" action="/auth/logout"' in page.text, path


@pytest.mark.attack("64")
@pytest.mark.attack("asvs-10.5.2")
@pytest.mark.attack("asvs-6.8.1")
async def test_the_same_subject_of_another_issuer_is_another_user(site: Site) -> None:
    browser = site.browser()
    await site.login(browser)
    other = Identity(issuer="https://other.example", subject="alice")
    await site.services.users.remember(other, {"name": "Another Alice"})
    assert (await browser.tab(f"{site.url}/").fetch("/api/me")).json()["name"] == "Alice"
    assert await site.plugin.sessions.list_for(other) == []
    await site.plugin.sessions.revoke_all(other)
    await site.services.users.set_disabled(other.user_key, disabled=True)
    assert await site.who(browser) == "alice"


@pytest.mark.attack("63")
@pytest.mark.attack("asvs-7.4.2")
async def test_a_disabled_user_is_refused_on_the_next_request_and_cannot_log_in(site: Site) -> None:
    browser = site.browser()
    await site.login(browser, Misbehaviour(userinfo={"roles": ["admin"]}))
    (stored,) = (await site.stored()).values()
    await site.services.users.set_disabled(stored.entry.user or "", disabled=True)
    assert await site.who(browser) is None
    before = await site.stored()
    assert (await site.login(site.browser())).status == 403
    assert await site.stored() == before
