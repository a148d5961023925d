"""Hostile authorization responses: none gets a session, and an unsolicited one never reaches the token endpoint."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from tests.session_core.oidc.fake_op import GET_PAGE, GONE, ISSUER, World

pytestmark = pytest.mark.anyio

CALLBACK = "/auth/callback"


@pytest.fixture
async def world() -> World:
    made = World()
    await made.plant()
    return made


def changed(url: str, **params: str | None) -> str:
    given = {**dict(parse_qsl(urlsplit(url).query)), **params}
    return f"{CALLBACK}?{httpx.QueryParams({name: value for name, value in given.items() if value is not None})}"


@pytest.mark.attack("1")
@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (None, "state_missing"),
        ("", "state_missing"),
        ("A" * 43, "state_unknown"),
        ("../../x", "state_malformed"),
        ("A" * 42 + "\n", "state_malformed"),
        ("\ud7ff" * 43, "parameters_malformed"),
        ("A" * 40_000, "parameters_too_large"),
    ],
)
async def test_a_missing_empty_unknown_or_huge_state_is_rejected(world: World, state: str | None, reason: str) -> None:
    url = changed(world.op.authorize(await world.start()), state=state)
    if reason == "parameters_malformed":
        url = f"{CALLBACK}?code=x&state=%ED%A0%80"
    await world.assert_rejected(await world.come_back(url), reason)
    assert world.op.count("/token") == 0


@pytest.mark.attack("1")
@pytest.mark.attack("58")
@pytest.mark.parametrize("path", ["/auth/login", CALLBACK, "/auth/frontchannel-logout"])
@pytest.mark.parametrize(
    "query", [b"state=" + b"A" * 2_000_000, b"state=\xff\xfe\x00", b"&".join([b"a=1"] * 500), b"next=%ed%a0%80&state=%ff&sid=%ff"]
)
async def test_two_megabytes_and_raw_bytes_are_no_500(world: World, path: str, query: bytes) -> None:
    assert 300 <= await world.raw_status(path, query, GET_PAGE) < 500
    assert world.op.count("/token") == 0


@pytest.mark.attack("2")
async def test_a_replayed_state_causes_no_second_exchange(world: World) -> None:
    url = world.op.authorize(await world.start())
    cookies = dict(world.browser.cookies)
    assert (await world.come_back(url)).status_code == 303
    async with world.new_browser(cookies=cookies) as thief:
        assert (await world.come_back(url, thief)).status_code == 400
        assert await world.subject(thief) is None
    assert world.reasons() == ["state_replayed"]
    assert world.op.count("/token") == 1


@pytest.mark.attack("3")
@pytest.mark.attack("16")
async def test_login_csrf_with_the_attackers_callback_is_rejected(world: World) -> None:
    async with world.new_browser() as attacker:
        url = world.op.authorize(await world.start(attacker))
    await world.start()
    await world.assert_rejected(await world.come_back(url), "state_unknown")
    assert world.op.count("/token") == 0


@pytest.mark.attack("4")
@pytest.mark.parametrize("order", [1, -1])
async def test_logins_in_ten_tabs_all_complete(world: World, order: int) -> None:
    urls = [world.op.authorize(await world.start(next=f"/tab{number}")) for number in range(10)]
    for number in range(10)[::order]:
        response = await world.come_back(urls[number])
        assert (response.status_code, response.headers["location"]) == (303, f"/tab{number}")
    assert world.reasons() == []


@pytest.mark.attack("5")
async def test_the_state_of_one_tab_with_the_code_of_another_is_rejected(world: World) -> None:
    first, second = world.op.authorize(await world.start()), world.op.authorize(await world.start())
    stolen = dict(parse_qsl(urlsplit(second).query))["code"]
    await world.assert_rejected(await world.come_back(changed(first, code=stolen)), "invalid_grant")


@pytest.mark.attack("6")
@pytest.mark.parametrize("name", ["state", "code", "iss"])
async def test_a_repeated_parameter_is_rejected(world: World, name: str) -> None:
    url = world.op.authorize(await world.start())
    value = dict(parse_qsl(urlsplit(url).query))[name]
    await world.assert_rejected(await world.come_back(f"{url}&{name}={value}"), "parameter_repeated")
    assert world.op.count("/token") == 0


@pytest.mark.attack("7")
@pytest.mark.attack("8")
@pytest.mark.attack("9")
@pytest.mark.parametrize(
    ("issuer", "reason"),
    [
        ("https://evil.example", "iss_mismatch"),
        (f"{ISSUER}/", "iss_mismatch"),
        ("", "iss_mismatch"),
        ("\u00fc", "iss_mismatch"),
        (None, "iss_missing"),
    ],
)
async def test_the_issuer_of_the_response_is_checked_before_the_code_is_sent(
    world: World, issuer: str | None, reason: str
) -> None:
    url = changed(world.op.authorize(await world.start()), iss=issuer)
    await world.assert_rejected(await world.come_back(url), reason)
    assert world.op.count("/token") == 0


@pytest.mark.attack("8")
async def test_a_missing_issuer_is_accepted_from_a_provider_that_never_sends_it(world: World) -> None:
    world.op.metadata = {"authorization_response_iss_parameter_supported": False}
    world.op.response_params = {"iss": None}
    assert (await world.login()).status_code == 303
    world.op.response_params = {"iss": "https://evil.example"}
    assert (await world.login()).status_code == 400


async def test_an_empty_error_beside_a_code_is_ignored(world: World) -> None:
    world.op.response_params = {"error": "", "error_description": ""}
    assert (await world.login()).status_code == 303


@pytest.mark.attack("10")
async def test_an_error_with_a_wrong_state_leaves_the_transaction_open(world: World) -> None:
    url = world.op.authorize(await world.start())
    refused = await world.come_back(f"{CALLBACK}?error=access_denied&state={'B' * 43}")
    await world.assert_rejected(refused, "state_unknown")
    assert (await world.come_back(url)).status_code == 303


@pytest.mark.attack("10")
async def test_an_error_with_the_right_state_consumes_the_transaction(world: World) -> None:
    url = world.op.authorize(await world.start())
    cookies = dict(world.browser.cookies)
    refused = await world.come_back(changed(url, code=None, error="access_denied"))
    await world.assert_rejected(refused, "access_denied")
    assert "Max-Age=0" in refused.headers["set-cookie"]
    async with world.new_browser(cookies=cookies) as again:
        assert (await world.come_back(url, again)).status_code == 400
    assert world.op.count("/token") == 0


@pytest.mark.attack("11")
@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "x\r\nSet-Cookie: a=b", "\u202eevil", "x" * 5000])
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
async def test_the_error_text_is_not_repeated(world: World, text: str, accept: str) -> None:
    world.browser.headers["accept"] = accept
    url = changed(world.op.authorize(await world.start()), error=text, error_description=text, error_uri=text)
    response = await world.browser.get(url, headers={**GET_PAGE, "accept": accept})
    await world.assert_rejected(response, "provider_error")
    assert text not in response.text
    assert text not in str(response.headers)
    assert text not in repr(world.events)


@pytest.mark.attack("12")
async def test_cross_site_login_starts_create_no_session_and_few_transactions(world: World) -> None:
    async with world.new_browser() as visitor:
        for _ in range(25):
            await visitor.get("/auth/login", headers={**GET_PAGE, "sec-fetch-site": "cross-site"})
            world.clock.advance(seconds=1)
        assert len(visitor.cookies) == 10
        assert all(name.startswith("login-8000-") for name in visitor.cookies)
        # The newest ones are kept.
        url = world.op.authorize(await world.start(visitor))
        assert (await world.come_back(url, visitor)).status_code == 303
    assert not any(event.name == "session.created" and event.identity is None for event in world.events[1:])


@pytest.mark.attack("12")
async def test_a_cookie_that_cannot_be_unsealed_is_not_deleted(world: World) -> None:
    """Cookies ignore ports, so it may be the open login of another application on this host."""
    world.browser.cookies.set("login-8000-junkjunk", "x" * 50)
    response = await world.browser.get("/auth/login", headers=GET_PAGE)
    assert not [cookie for cookie in response.headers.get_list("set-cookie") if "Max-Age=0" in cookie]


@pytest.mark.attack("54")
async def test_five_hundred_planted_cookies_cause_no_huge_response(world: World) -> None:
    cookies = "; ".join(f"login-8000-{number:08d}=x" for number in range(500))
    response = await world.browser.get("/auth/login", headers={**GET_PAGE, "cookie": cookies})
    assert response.status_code == 303
    assert len(response.headers.get_list("set-cookie")) == 1


@pytest.mark.attack("12")
@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image", "sec-fetch-site": "cross-site"},
        {"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe", "sec-fetch-site": "cross-site"},
        {**GET_PAGE, "sec-purpose": "prefetch;prerender"},
        {"sec-fetch-mode": "cors", "sec-fetch-dest": "empty", "sec-fetch-site": "same-origin"},
    ],
)
async def test_images_frames_and_prefetches_start_no_login(world: World, headers: dict[str, str]) -> None:
    response = await world.browser.get("/auth/login", headers=headers)
    assert response.status_code == 403
    assert "set-cookie" not in response.headers


@pytest.mark.attack("13")
async def test_the_same_callback_fifty_times_at_once_is_one_exchange_and_one_session(world: World) -> None:
    url = world.op.authorize(await world.start())
    cookies = dict(world.browser.cookies)
    browsers = [world.new_browser(cookies=cookies) for _ in range(50)]
    responses = await asyncio.gather(*(world.come_back(url, browser) for browser in browsers))
    assert sorted(response.status_code for response in responses) == [303] + [400] * 49
    assert world.op.count("/token") == 1
    assert world.reasons() == ["state_replayed"] * 49
    assert len([session async for session in world.sessions.store.scan()]) == 1


@pytest.mark.attack("14")
async def test_a_transaction_older_than_ten_minutes_is_rejected(world: World) -> None:
    url = world.op.authorize(await world.start())
    world.clock.advance(seconds=600)
    await world.assert_rejected(await world.come_back(url), "state_expired")
    assert world.op.count("/token") == 0


@pytest.mark.attack("14")
async def test_a_transaction_of_nine_minutes_is_accepted(world: World) -> None:
    url = world.op.authorize(await world.start())
    world.clock.advance(seconds=599)
    assert (await world.come_back(url)).status_code == 303


@pytest.mark.parametrize("seconds", [-300, -301])
async def test_a_login_can_complete_on_a_node_whose_clock_is_five_minutes_behind(world: World, seconds: int) -> None:
    url = world.op.authorize(await world.start())
    world.clock.advance(seconds=seconds)
    response = await world.come_back(url)
    assert (response.status_code, world.reasons()) == ((303, []) if seconds == -300 else (400, ["state_expired"]))


@pytest.mark.attack("50")
async def test_a_changed_or_moved_transaction_cookie_is_rejected(world: World) -> None:
    url, other = world.op.authorize(await world.start()), world.op.authorize(await world.start())
    names = [name for name in world.browser.cookies if name.startswith("login-8000-")]
    values = {name: world.browser.cookies[name] for name in names}
    # One transaction's value under the other's name; then one byte changed.
    for name, value in zip(names, reversed(list(values.values())), strict=True):
        world.browser.cookies.set(name, value, domain="127.0.0.1")
    async with world.new_browser(cookies=dict(zip(names, reversed(list(values.values())), strict=True))) as browser:
        for address in (url, other):
            assert (await world.come_back(address, browser)).status_code == 400
    flipped = {name: ("B" if value[0] == "A" else "A") + value[1:] for name, value in values.items()}
    async with world.new_browser(cookies=flipped) as browser:
        assert (await world.come_back(url, browser)).status_code == 400
    assert world.reasons() == ["state_unknown"] * 3
    assert world.op.count("/token") == 0


@pytest.mark.attack("50")
async def test_a_transaction_under_the_name_of_another_is_rejected(world: World) -> None:
    await world.start()
    await world.start()
    cookies = {name: value for name, value in world.browser.cookies.items() if name.startswith("login-8000-")}
    swapped = dict(zip(cookies, reversed(list(cookies.values())), strict=True))
    async with world.new_browser(cookies=swapped) as browser:
        response = await browser.get("/auth/login", headers=GET_PAGE)
    deleted = [cookie for cookie in response.headers.get_list("set-cookie") if "Max-Age=0" in cookie]
    assert deleted == []


@pytest.mark.attack("58")
@pytest.mark.parametrize("code", ["", "a\r\nb", "\x00", "ü", "x" * 5000])
async def test_a_malformed_code_is_rejected(world: World, code: str) -> None:
    url = changed(world.op.authorize(await world.start()), code=code)
    await world.assert_rejected(await world.come_back(url), "code_malformed")
    assert world.op.count("/token") == 0


@pytest.mark.attack("57")
async def test_forged_host_headers_do_not_change_the_redirect_uri(world: World) -> None:
    spoofed = {"x-forwarded-host": "evil.example", "x-forwarded-proto": "http", "forwarded": "host=evil.example"}
    response = await world.browser.get("/auth/login", headers={**GET_PAGE, **spoofed, "host": "evil.example"})
    asked = dict(parse_qsl(urlsplit(response.headers["location"]).query))
    assert asked["redirect_uri"] == "http://127.0.0.1:8000/auth/callback"


@pytest.mark.attack("42")
@pytest.mark.parametrize("claims", [{}, {"sid": GONE, "sub": "alice"}], ids=["by sid", "by sub"])
async def test_a_login_that_the_provider_ends_during_its_callback_is_rejected(world: World, claims: dict[str, Any]) -> None:
    url = world.op.authorize(await world.start())
    inside, go_on = world.op.hold("/userinfo")
    callback = asyncio.create_task(world.come_back(url))
    await inside.wait()
    assert (await world.send_logout(world.op.logout_token(**claims))).status_code == 200
    go_on.set()
    assert (await callback).status_code == 400
    assert world.reasons() == ["ended_by_provider"]
    assert await world.subject() is None
    # The next login is a new one and is accepted.
    world.op.replies.clear()
    world.clock.advance(seconds=1)
    assert (await world.login()).status_code == 303
