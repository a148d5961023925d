"""A provider whose servers are slow, oversized, wrong or down: bounded in time, rejected, no effect on other users."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from session_core.oidc.http import OpHttp
from tests.security.conftest import StartSite
from tests.security.rejection import BEFORE, assert_all_rejected, assert_rejected, prepare
from tests.security.site import Site
from tests.support.hostile_op import http_server as faults
from tests.support.hostile_op.browser import Browser, Page
from tests.support.hostile_op.http_server import Fault, answers
from tests.support.hostile_op.logout import deliver, logout_token
from tests.support.hostile_op.misbehaviour import Misbehaviour
from tests.support.hostile_op.provider import CONFIGURATION, HostileOp
from tests.support.hostile_op.signing import GONE, signing_key

pytestmark = pytest.mark.anyio

SECONDS = 0.4
"""The timeout for endpoints that hang; all others keep the default of five seconds."""
OTHER = signing_key("RS256", 2, kid="key-2")

FAULTS: dict[str, tuple[Fault, str]] = {
    "hangs": (faults.hang, "timeout"),
    "drips": (faults.drip, "timeout"),
    "drips headers": (faults.drip_headers, "timeout"),
    "hangs up": (faults.hang_up, "unreachable"),
    "cut short": (faults.cut_short, "unreachable"),
    "no http": (faults.not_http, "unreachable"),
    "50 MB": (faults.fifty_megabytes, "too_large"),
    "gzip bomb": (faults.gzip_bomb, "compressed"),
    "500": (faults.SERVER_ERROR, "status"),
    "503": (faults.UNAVAILABLE, "status"),
    "redirect": (answers(302, location="http://127.0.0.1:9/evil"), "status"),
    "html with 200": (faults.HTML, "malformed"),
    "no json": (faults.NOT_JSON, "malformed"),
    "half json": (faults.CUT_JSON, "malformed"),
    "a list": (faults.LIST_JSON, "malformed"),
    "nested": (faults.DEEP_JSON, "malformed"),
}


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The timeout of single endpoints in seconds, so that a busy machine does not time out the other endpoints."""
    seconds: dict[str, float] = {}
    send = OpHttp.send

    async def hurried(self: Any, *arguments: Any, what: str, **options: Any) -> Any:
        self._open_client()
        usual = self._timeout
        self._timeout = seconds.get(what, usual)
        try:
            sending = asyncio.ensure_future(send(self, *arguments, what=what, **options))
            await asyncio.sleep(0)
        finally:
            self._timeout = usual
        return await sending

    monkeypatch.setattr(OpHttp, "send", hurried)
    return seconds


def each_fault(patience: dict[str, float], endpoint: str) -> Iterator[tuple[Fault, str]]:
    """Every fault with the reason of its event; faults that never end get a short timeout."""
    for fault, reason in FAULTS.values():
        patience[endpoint] = SECONDS if reason == "timeout" else 30
        yield fault, f"{endpoint}_{reason}"
    patience.clear()


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    started = time.monotonic()
    yield
    # Far above the timeout for a busy machine, far below the time of a peer that never ends.
    assert time.monotonic() - started < seconds + 10


async def assert_fault_is_rejected(site: Site, attempt: Any, reason: str, status: int) -> None:
    """The strictest of the browser's states is enough here: a user is logged in and stays logged in."""
    async with within(SECONDS):
        await assert_all_rejected(site, attempt, reason, status=status, states=[BEFORE[2]])


@pytest.mark.attack("32")
async def test_a_faulty_discovery_is_rejected(start_site: StartSite, op: HostileOp, patience: dict[str, float]) -> None:
    op.faults[CONFIGURATION] = faults.SERVER_ERROR
    async with start_site(op=op) as site:
        for fault, reason in each_fault(patience, "discovery"):
            op.faults[CONFIGURATION] = fault
            await assert_fault_is_rejected(site, Misbehaviour(), reason, 503)
        assert op.count("/authorize") == 0
        # The next login succeeds at once, without a restart.
        op.faults.clear()
        assert (await site.login(site.browser())).status == 200


@pytest.mark.attack("32")
async def test_a_faulty_key_set_is_rejected(site: Site, patience: dict[str, float]) -> None:
    for fault, reason in each_fault(patience, "jwks"):
        site.op.faults["/jwks"] = fault
        browser = site.browser()
        before = await prepare(site, browser, BEFORE[2])
        async with within(SECONDS):
            page = await site.login(browser)
        await assert_rejected(site, browser, page, before, reason)
    site.op.faults.clear()
    assert (await site.login(site.browser())).status == 200


@pytest.mark.attack("32")
async def test_a_key_set_of_a_hundred_thousand_keys_is_rejected(site: Site) -> None:
    entry = {"kty": "RSA", "n": "x", "e": "AQAB"}
    site.op.jwks = [site.op.key.jwk(), *([entry] * 100_000)]
    await assert_fault_is_rejected(site, Misbehaviour(), "jwks_too_large", 503)
    site.op.jwks = [site.op.key.jwk(), *([entry] * 20_000)]
    async with within(SECONDS):
        assert (await site.login(site.browser())).status == 200


@pytest.mark.attack("32")
async def test_sessions_continue_while_the_provider_is_down(site: Site) -> None:
    browser = site.browser()
    await site.login(browser)
    site.op.faults = dict.fromkeys((CONFIGURATION, "/jwks", "/token", "/userinfo"), faults.hang)
    site.clock.advance(minutes=30)
    async with within(0):
        assert await site.who(browser) == "alice"


METADATA: list[tuple[dict[str, Any], str]] = [
    ({"issuer": "https://evil.example"}, "discovery_issuer_mismatch"),
    ({"issuer": GONE}, "discovery_malformed"),
    ({"issuer": ["x"]}, "discovery_malformed"),
    ({"token_endpoint": "http://op.example/token"}, "discovery_insecure_endpoint"),
    ({"jwks_uri": "http://op.example/jwks"}, "discovery_insecure_endpoint"),
    ({"jwks_uri": "file:///etc/passwd"}, "discovery_insecure_endpoint"),
    ({"authorization_endpoint": "http://op.example/authorize"}, "discovery_insecure_endpoint"),
    ({"userinfo_endpoint": "gopher://127.0.0.1:6379/"}, "discovery_insecure_endpoint"),
    ({"end_session_endpoint": "javascript:alert(1)"}, "discovery_insecure_endpoint"),
    ({"authorization_endpoint": GONE}, "discovery_malformed"),
]


@pytest.mark.attack("33")
@pytest.mark.attack("asvs-10.5.3")
async def test_metadata_with_untrusted_values_is_rejected(start_site: StartSite, op: HostileOp) -> None:
    op.faults[CONFIGURATION] = faults.SERVER_ERROR
    async with start_site(op=op) as site:
        op.faults.clear()
        for metadata, reason in METADATA:
            op.metadata = metadata
            await assert_all_rejected(site, Misbehaviour(), reason, status=503)
        op.metadata = {"issuer": f"{op.issuer}/"}
        await assert_all_rejected(site, Misbehaviour(), "discovery_issuer_mismatch", status=503)
        assert {call.path for call in op.calls} == {CONFIGURATION}


@pytest.mark.attack("34")
async def test_a_faulty_token_endpoint_is_rejected(site: Site, patience: dict[str, float]) -> None:
    for number, (fault, reason) in enumerate(each_fault(patience, "token"), start=1):
        for _ in range(5):
            await assert_fault_is_rejected(site, Misbehaviour(token_fault=fault), reason, 502)
            if site.op.count("/token") == number:
                break  # otherwise a busy machine hit the timeout before the provider read the request
    # A code is sent once, whatever the outcome.
    codes = [call.form["code"] for call in site.op.calls if call.path == "/token"]
    assert len(set(codes)) == len(codes) == len(FAULTS)


@pytest.mark.attack("34")
async def test_a_faulty_userinfo_endpoint_is_rejected(site: Site, patience: dict[str, float]) -> None:
    for fault, reason in each_fault(patience, "userinfo"):
        await assert_fault_is_rejected(site, Misbehaviour(userinfo_fault=fault), reason, 502)


@pytest.mark.attack("31")
async def test_forged_kids_cost_one_fetch_and_do_not_delay_a_rotation(site: Site) -> None:
    await site.login(site.browser())
    tokens = [logout_token(site.op, header={"kid": f"forged-{number}"}) for number in range(100)]
    statuses = {response.status_code for response in await asyncio.gather(*(deliver(site.op, token) for token in tokens))}
    assert statuses == {400}
    assert site.op.count("/jwks") == 2
    site.op.rotate(OTHER)
    browser = site.browser()
    assert (await site.login(browser)).status == 200
    assert site.op.count("/jwks") == 3
    assert (await deliver(site.op, logout_token(site.op))).status_code == 200
    assert await site.who(browser) is None


@pytest.mark.attack("31")
async def test_id_tokens_with_unknown_kids_cost_one_fetch_per_cooldown(site: Site) -> None:
    await site.login(site.browser())
    forged = Misbehaviour(key=OTHER, header={"kid": "unknown"})
    await assert_all_rejected(site, forged, "unknown_key")
    assert site.op.count("/jwks") == 2
    site.clock.advance(seconds=10)
    await assert_all_rejected(site, forged, "unknown_key")
    assert site.op.count("/jwks") == 3


@pytest.mark.attack("37")
async def test_a_refused_refresh_ends_the_login(site: Site) -> None:
    browser, carol = site.browser(), site.browser()
    await site.login(browser)
    await site.enter(carol, "carol")
    site.op.grants.all[-1].revoked = True
    site.clock.advance(seconds=300)
    tab = browser.tab(f"{site.url}/")
    assert (await tab.fetch("/api/userinfo")).status == 401
    assert [await site.who(each) for each in (browser, carol)] == [None, "carol"]
    assert site.reasons() == ["refresh_invalid_grant"]


@pytest.mark.attack("37")
async def test_an_outage_ends_no_session(site: Site, patience: dict[str, float]) -> None:
    browser = site.browser()
    await site.login(browser)
    tab = browser.tab(f"{site.url}/")
    for fault in (faults.UNAVAILABLE, faults.SERVER_ERROR, faults.hang, faults.hang_up, faults.HTML):
        patience["token"] = SECONDS if fault is faults.hang else 30
        site.op.grants.all[-1].after = Misbehaviour(token_fault=fault)
        site.clock.advance(seconds=275)  # due for a refresh, not expired yet
        assert (await tab.fetch("/api/userinfo")).status == 200
        site.clock.advance(seconds=30)
        async with within(3 * SECONDS):
            assert (await tab.fetch("/api/userinfo")).status in {502, 503, 504}
        assert await site.who(browser) == "alice"
        site.op.grants.all[-1].after = None
        patience.clear()
        site.clock.advance(seconds=30)
        assert (await tab.fetch("/api/userinfo")).status == 200
    assert site.reasons() == []


@pytest.mark.attack("42")
@pytest.mark.parametrize("by", ["sid", "sub"])
async def test_a_login_that_the_provider_ends_meanwhile_is_rejected(site: Site, by: str) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def slow(writer: asyncio.StreamWriter) -> None:
        inside.set()
        await go_on.wait()
        await answers(200, '{"sub": "alice"}', content_type="application/json")(writer)

    old = site.browser()
    await site.login(old)
    browser = site.browser()
    callback: asyncio.Task[Page] = asyncio.create_task(site.login(browser, Misbehaviour(userinfo_fault=slow)))
    await inside.wait()
    claims = {"sub": GONE} if by == "sid" else {"sid": GONE}
    assert (await deliver(site.op, logout_token(site.op, claims=claims))).status_code == 200
    go_on.set()
    assert (await callback).status == 400
    assert [await site.who(each) for each in (old, browser)] == [None, None]
    assert await site.stored() == {}
    assert site.reasons() == ["ended_by_provider"]


@pytest.mark.attack("42")
@pytest.mark.parametrize("how", ["logout", "revoke all"])
async def test_a_login_in_progress_does_not_extend_the_previous_session(site: Site, how: str) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def slow(writer: asyncio.StreamWriter) -> None:
        inside.set()
        await go_on.wait()
        await answers(200, '{"sub": "alice"}', content_type="application/json")(writer)

    browser, copy = site.browser(), site.browser()
    await site.login(browser)
    browser.jar.copy_to(copy.jar)
    callback: asyncio.Task[Page] = asyncio.create_task(site.login(browser, Misbehaviour(userinfo_fault=slow)))
    await inside.wait()
    old: Browser = copy
    if how == "logout":
        site.op.faults["/end_session"] = answers(200)
        await old.tab(f"{site.url}/").submit("/auth/logout")
    else:
        page = await old.tab(f"{site.url}/").fetch("/api/sessions?include_current=true", "DELETE")
        assert page.status == 204
    go_on.set()
    await callback
    thief = site.browser()
    for name, value in ((site.cookie, value) for value in copy.jar.ever):
        thief.jar.toss(name, value, "localhost", host_only=True)
        assert await site.who(thief) is None
    assert len(await site.stored()) <= 1
