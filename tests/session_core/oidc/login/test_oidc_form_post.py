"""Posted responses (`response_mode=form_post`): a cross-site request without the session cookie."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from session_core import ConfigurationError
from session_core.oidc import OidcConfig
from session_core.sealing import SealingKeys
from tests.session_core.oidc.fake_op import GET_PAGE, ISSUER, World
from tests.support.factories import ProviderFactory

pytestmark = pytest.mark.anyio

PUBLIC_URL = "https://app.example.org"
POSTED = {
    "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "accept": "text/html",
    "origin": ISSUER, "content-type": "application/x-www-form-urlencoded",
}  # fmt: skip


class PostWorld(World):
    """With the browser's behaviour: Lax cookies are not sent with a cross-site POST."""

    def __init__(self, **provider: Any) -> None:
        super().__init__(public_url=PUBLIC_URL, provider={"response_mode": "form_post", **provider})

    async def post(self, body: str | bytes, path: str = "/auth/callback", **headers: str) -> httpx.Response:
        jar = self.browser.cookies
        sent = {name: jar[name] for name in jar if name.startswith("__Host-login-post-")}
        async with self.new_browser(cookies=sent) as cross_site:
            response = await cross_site.post(path, content=body, headers={**POSTED, **headers})
        jar.extract_cookies(response)
        return response

    async def answer(self, **params: str) -> str:
        _, given = self.op.respond(await self.start(None, **params))
        return urlencode(given)

    async def follow(self, response: httpx.Response) -> httpx.Response:
        assert response.status_code == 303, response.text
        return await self.come_back(response.headers["location"])

    async def plant(self) -> None:
        await self.browser.patch("/assign", json={"note": "before"})
        self.planted = self.browser.cookies["__Host-session"]

    async def assert_refused(self, response: httpx.Response, reason: str) -> None:
        assert 400 <= response.status_code < 500
        assert self.reasons() == [reason]
        assert "__Host-session" not in response.headers.get("set-cookie", "")
        assert self.browser.cookies["__Host-session"] == self.planted
        state = (await self.browser.get("/read")).json()
        assert (state["subject"], state["data"]["note"]) == (None, "before")
        assert self.op.count("/token") == 0


@pytest.fixture
def world() -> PostWorld:
    return PostWorld()


async def test_a_posted_response_logs_in(world: PostWorld) -> None:
    url = await world.start(next="/account")
    assert parse_qs(urlsplit(url).query)["response_mode"] == ["form_post"]
    _, form = world.op.respond(url)
    posted = await world.post(urlencode(form))
    assert posted.headers["location"] == f"/auth/continue?state={form['state']}"
    assert form["code"] not in str(posted.headers)
    response = await world.follow(posted)
    assert (response.status_code, response.headers["location"]) == (303, "/account")
    assert await world.subject() == "alice"
    assert not [name for name in world.browser.cookies if "login" in name]


async def test_the_cookies_of_a_posted_login_are_restricted(world: PostWorld) -> None:
    response = await world.browser.get("/auth/login", headers=GET_PAGE)
    (cookie,) = response.headers.get_list("set-cookie")
    assert cookie.startswith("__Host-login-post-")
    assert cookie.endswith("; Max-Age=3600; Path=/; Secure; HttpOnly; SameSite=None")
    _, form = world.op.respond(response.headers["location"])
    posted = await world.post(urlencode(form))
    (reply,) = posted.headers.get_list("set-cookie")
    assert reply.startswith("__Host-login-reply-")
    assert reply.endswith("; Max-Age=60; Path=/; Secure; HttpOnly; SameSite=Lax")
    assert (posted.headers["cache-control"], posted.headers["referrer-policy"]) == ("no-store", "no-referrer")
    done = await world.follow(posted)
    deleted = [each for each in done.headers.get_list("set-cookie") if "login-" in each]
    assert sorted(each.partition("-")[2].partition("-")[2].split("-")[0] for each in deleted) == ["post", "reply"]
    assert all("Max-Age=0" in each for each in deleted)
    assert any(each.endswith("Path=/; Secure; HttpOnly; SameSite=None") for each in deleted)


@pytest.mark.attack("38")
async def test_an_existing_session_continues_under_a_new_id(world: PostWorld) -> None:
    await world.plant()
    await world.follow(await world.post(await world.answer()))
    state = (await world.browser.get("/read")).json()
    assert (state["subject"], state["data"]["note"]) == ("alice", "before")
    async with world.new_browser(cookies={"__Host-session": world.planted or ""}) as attacker:
        assert await world.subject(attacker) is None


async def test_the_post_neither_reads_nor_sets_a_session_cookie(world: PostWorld) -> None:
    await world.plant()
    posted = await world.post(await world.answer())
    assert "__Host-session" not in posted.headers["set-cookie"]
    assert world.op.count("/token") == 0


@pytest.mark.attack("3")
async def test_a_form_of_another_site_with_its_own_login_is_rejected(world: PostWorld) -> None:
    attackers = await world.answer()
    world.browser = world.new_browser()
    await world.plant()
    await world.assert_refused(await world.post(attackers), "state_unknown")


@pytest.mark.attack("2")
async def test_a_resubmitted_form_is_rejected(world: PostWorld) -> None:
    form = await world.answer()
    posted = await world.post(form)
    again = await world.post(form)
    assert (await world.follow(posted)).status_code == 303
    replay = await world.come_back(again.headers["location"])
    assert replay.status_code == 400
    assert world.op.count("/token") == 1


@pytest.mark.attack("13")
async def test_a_continuation_is_single_use_also_with_kept_cookies(world: PostWorld) -> None:
    posted = await world.post(await world.answer())
    async with world.new_browser(cookies=dict(world.browser.cookies)) as kept:
        assert (await world.follow(posted)).status_code == 303
        replay = await kept.get(posted.headers["location"], headers=GET_PAGE)
    assert (replay.status_code, world.reasons()) == (400, ["state_replayed"])
    assert world.op.count("/token") == 1


@pytest.mark.attack("14")
async def test_a_continuation_expires_after_a_minute(world: PostWorld) -> None:
    await world.plant()
    posted = await world.post(await world.answer())
    world.clock.advance(seconds=60)
    await world.assert_refused(await world.follow(posted), "state_expired")


async def test_a_continuation_without_a_form_is_rejected(world: PostWorld) -> None:
    await world.plant()
    _, form = world.op.respond(await world.start())
    await world.assert_refused(await world.come_back(f"/auth/continue?state={form['state']}"), "response_missing")


async def test_a_code_in_the_query_of_the_continuation_is_ignored(world: PostWorld) -> None:
    posted = await world.post(await world.answer())
    assert (await world.come_back(posted.headers["location"] + "&code=injected&iss=https://evil.example")).status_code == 303
    assert await world.subject() == "alice"


async def test_a_continuation_with_the_response_of_another_login_is_rejected(world: PostWorld) -> None:
    await world.plant()
    first = await world.post(await world.answer())
    cookies = {name: value for name, value in world.browser.cookies.items() if "reply" in name}
    _, form = world.op.respond(await world.start())
    ((name, value),) = cookies.items()
    own = next(each for each in world.browser.cookies if "post" in each and each[-8:] != name[-8:])
    world.browser.cookies.set(f"__Host-login-reply-{own[-8:]}", value, domain="app.example.org")
    await world.assert_refused(await world.come_back(f"/auth/continue?state={form['state']}"), "response_missing")
    assert (await world.follow(first)).status_code == 303


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda form: form + "&code=2", "parameter_repeated"),
        (lambda form: form + "&state=2", "parameter_repeated"),
        (lambda form: form.replace("state=", "other="), "state_missing"),
        (lambda _: "state=", "state_missing"),
        (lambda _: "", "state_missing"),
        (lambda form: form + "&x=" + "x" * 20_000, "body_too_large"),
        (lambda form: form + "&code2=%ff", "parameters_malformed"),
        (lambda form: form + "&x=1" * 60, "parameters_malformed"),
        (lambda form: form.replace("code=", "code=" + "x" * 2048), "response_too_large"),
        (lambda form: form.replace("iss=", "iss=" + "x" * 600), "response_too_large"),
    ],
)
async def test_malformed_forms_are_rejected(world: PostWorld, change: Any, reason: str) -> None:
    await world.plant()
    await world.assert_refused(await world.post(change(await world.answer())), reason)


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "multipart/form-data; boundary=x", ""])
async def test_other_content_types_are_rejected(world: PostWorld, content_type: str) -> None:
    await world.plant()
    await world.assert_refused(await world.post(await world.answer(), **{"content-type": content_type}), "content_type")


@pytest.mark.attack("7")
async def test_the_issuer_is_checked_as_in_a_query_response(world: PostWorld) -> None:
    await world.plant()
    world.op.response_params = {"iss": "https://evil.example"}
    await world.assert_refused(await world.follow(await world.post(await world.answer())), "iss_mismatch")


@pytest.mark.attack("10")
async def test_a_posted_error_fails_the_login(world: PostWorld) -> None:
    await world.plant()
    world.op.response_params = {"code": None, "error": "access_denied", "error_description": "<script>"}
    response = await world.follow(await world.post(await world.answer()))
    await world.assert_refused(response, "access_denied")
    assert "script" not in response.text


async def test_a_query_response_to_a_login_that_expects_a_form_is_rejected(world: PostWorld) -> None:
    await world.plant()
    await world.assert_refused(await world.come_back(f"/auth/callback?{await world.answer()}"), "response_mode_mismatch")


async def test_a_form_to_a_login_that_expects_a_query_response_is_rejected() -> None:
    """The login started before the application was configured for forms; its transaction stores the response mode."""
    before = World(public_url=PUBLIC_URL)
    _, form = before.op.respond(await before.start())
    world = PostWorld()
    async with world.new_browser(cookies=dict(before.browser.cookies)) as browser:
        response = await browser.post(
            "/auth/callback", content=urlencode(form), headers={**POSTED, "sec-fetch-site": "same-origin"}
        )
    # Clocks and keys agree; only the mode is wrong.
    assert (response.status_code, world.reasons()) == (400, ["response_mode_mismatch"])


async def test_without_the_mode_a_post_is_refused() -> None:
    world = World()
    response = await world.browser.post("/auth/callback", content="code=1&state=2", headers=POSTED)
    assert response.status_code == 405


@pytest.mark.attack("12")
async def test_the_number_of_open_logins_is_bounded(world: PostWorld) -> None:
    for _ in range(13):
        world.clock.advance(seconds=1)
        await world.start()
    assert len([name for name in world.browser.cookies if "login-post-" in name]) == 10


async def test_a_provider_without_form_post_is_refused(world: PostWorld) -> None:
    world.op.metadata = {"response_modes_supported": ["query", "fragment"]}
    response = await world.browser.get("/auth/login", headers=GET_PAGE)
    assert (response.status_code, world.reasons()) == (503, ["response_mode_unsupported"])
    world = PostWorld()
    world.op.metadata = {"response_modes_supported": ["query", "form_post"]}
    await world.start()


async def test_each_of_several_providers_has_its_own_callback() -> None:
    world = PostWorld(id="poster")
    _, form = world.op.respond(await world.start())
    posted = await world.post(urlencode(form), "/auth/callback/poster")
    assert posted.headers["location"] == f"/auth/continue/poster?state={form['state']}"
    assert (await world.follow(posted)).status_code == 303
    assert await world.subject() == "alice"
    assert (await world.post(urlencode(form), "/auth/callback/x")).status_code == 404


@pytest.mark.parametrize(
    ("public_url", "works"),
    [("https://app.example.org", True), ("http://localhost:8000", True), ("http://127.0.0.1:8000", True),
     ("http://app.example.org", False), ("http://10.0.0.1", False)],
)  # fmt: skip
def test_form_post_is_refused_where_a_browser_would_drop_the_cookie(public_url: str, works: bool) -> None:
    provider = ProviderFactory.build(response_mode="form_post")
    given: dict[str, Any] = {"providers": [provider], "public_url": public_url, "sealing": SealingKeys([b"k" * 32])}
    if works:
        OidcConfig(**given)
    else:
        with pytest.raises(ConfigurationError):
            OidcConfig(**given)
