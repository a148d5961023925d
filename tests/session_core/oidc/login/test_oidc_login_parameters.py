"""Which parameters a link, the configuration and another site may set for a login."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from session_core import ConfigurationError
from tests.session_core.oidc.fake_op import GET_PAGE, ISSUER, World
from tests.support.factories import ProviderFactory

pytestmark = pytest.mark.anyio

FORM = {
    "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "accept": "text/html",
    "origin": "https://portal.example", "content-type": "application/x-www-form-urlencoded",
}  # fmt: skip


def asked(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query)


async def test_a_link_can_set_these_parameters() -> None:
    world = World()
    given = {"max_age": "60", "acr_values": "a b", "prompt": "consent", "login_hint": "alice", "ui_locales": "de-CH de en"}
    query = asked(await world.start(None, **given))
    assert {name: query[name][0] for name in given} == given


@pytest.mark.parametrize(
    "params",
    [{"audience": "x"}, {"scope": "admin"}, {"redirect_uri": "https://evil.example"}, {"response_mode": "fragment"},
     {"state": "x" * 43}, {"nonce": "x"}, {"claims": "{}"}, {"request": "x"}, {"code_challenge_method": "plain"},
     {"display": "wap"}],
)  # fmt: skip
async def test_other_parameters_of_a_link_are_ignored(params: dict[str, str]) -> None:
    world = World()
    query = asked(await world.start(None, **params))
    ((name, value),) = params.items()
    assert value not in query.get(name, [])


@pytest.mark.parametrize(
    "query",
    ["ui_locales=", "ui_locales=de_CH", "ui_locales=de%0d%0a", "ui_locales=" + "a-" * 100, "ui_locales=de%20%20en",
     "ui_locales=de&ui_locales=en", "login_hint=" + "x" * 257, "acr_values=" + "x" * 513, "prompt=none%20login",
     "max_age=1234567890"],
)  # fmt: skip
async def test_invalid_values_are_refused(query: str) -> None:
    world = World()
    response = await world.browser.get(f"/auth/login?{query}", headers=GET_PAGE)
    assert (response.status_code, "set-cookie" in response.headers) == (400, False)
    assert world.reasons() == ["parameter_repeated" if query.count("ui_locales") == 2 else "login_parameter"]


async def test_the_configuration_can_add_any_other_parameter() -> None:
    given = {"audience": "https://api.example.org", "display": "touch", "prompt": "select_account", "ui_locales": "de"}
    world = World(provider={"authorization_params": given})
    query = asked(await world.start())
    assert {name: query[name][0] for name in given} == given
    # A link overrides a configured default.
    query = asked(await world.start(prompt="login", ui_locales="fr"))
    assert (query["prompt"], query["ui_locales"], query["audience"]) == (["login"], ["fr"], ["https://api.example.org"])


class TestWhatEveryLoginMustProve:
    async def test_a_link_can_demand_more_but_not_less(self) -> None:
        world = World(provider={"max_age": 600, "acr_values": ("phr", "phrh")})
        assert {name: asked(await world.start())[name] for name in ("max_age", "acr_values")} == {
            "max_age": ["600"],
            "acr_values": ["phr phrh"],
        }
        query = asked(await world.start(max_age="60", acr_values="phrh"))
        assert (query["max_age"], query["acr_values"]) == (["60"], ["phrh"])
        assert asked(await world.start(max_age="86400"))["max_age"] == ["600"]
        response = await world.browser.get("/auth/login?acr_values=pwd", headers=GET_PAGE)
        assert (response.status_code, world.reasons()) == (400, ["login_parameter"])

    @pytest.mark.parametrize(
        ("claims", "reason"),
        [
            ({"acr": "phr"}, "auth_time_missing"),
            ({"acr": "phr", "auth_time": -700}, "auth_time_too_old"),
            ({"auth_time": 0}, "acr_not_met"),
            ({"auth_time": 0, "acr": "pwd"}, "acr_not_met"),
        ],
    )
    async def test_a_provider_that_does_not_meet_the_demand_is_rejected(self, claims: dict[str, Any], reason: str) -> None:
        world = World(provider={"max_age": 600, "acr_values": ("phr",)})
        now = world.clock.now() // 1000
        world.op.claims = {name: now + value if name == "auth_time" else value for name, value in claims.items()}
        await world.plant()
        await world.assert_rejected(await world.login(), reason)


class TestSilentLogin:
    @pytest.mark.parametrize(
        "error",
        [
            "login_required",
            "interaction_required",
            "consent_required",
            "account_selection_required",
            "invalid_request",
            "access_denied",
            "server_error",
            "invalid_scope",
        ],
    )
    async def test_a_failed_silent_login_returns_the_visitor_to_the_page(self, error: str) -> None:
        world = World()
        await world.plant()
        world.op.response_params = {"code": None, "error": error, "error_description": "<script>"}
        response = await world.login(prompt="none", next="/account?tab=1")
        assert (response.status_code, response.headers["location"]) == (303, "/account?tab=1")
        assert world.browser.cookies.get("session-8000") == world.planted
        assert (world.reasons(), world.reasons("login.silent_failed")) == ([], [error])
        assert not [name for name in world.browser.cookies if name.startswith("login-8000-")]

    async def test_a_logged_in_user_stays_logged_in(self) -> None:
        world = World()
        await world.login()
        cookie = world.browser.cookies.get("session-8000")
        world.op.response_params = {"code": None, "error": "login_required"}
        await world.login(prompt="none")
        assert (await world.subject(), world.browser.cookies.get("session-8000")) == ("alice", cookie)

    async def test_a_user_with_a_provider_session_is_logged_in(self) -> None:
        world = World()
        url = await world.start(prompt="none", next="/account")
        assert asked(url)["prompt"] == ["none"]
        assert (await world.come_back(world.op.authorize(url))).headers["location"] == "/account"
        assert await world.subject() == "alice"

    async def test_a_provider_outage_returns_to_the_page(self) -> None:
        world = World()
        world.op.replies = {"/.well-known/openid-configuration": lambda _: httpx2.Response(503)}
        response = await world.browser.get("/auth/login?prompt=none&next=/account", headers=GET_PAGE)
        assert (response.status_code, response.headers["location"]) == (303, "/account")
        assert len(world.reasons("login.silent_failed")) == 1

    @pytest.mark.parametrize("failure", ["token endpoint", "keys", "metadata", "id token", "userinfo", "no code", "late"])
    async def test_a_login_that_fails_at_its_end_leads_to_the_page_too(self, failure: str) -> None:
        world = World()
        await world.plant()
        back = world.op.authorize(await world.start(prompt="none", next="/account?tab=1"))
        paths = {"token endpoint": "/token", "keys": "/jwks", "userinfo": "/userinfo"}
        if failure in paths:
            world.op.replies = {paths[failure]: lambda _: httpx2.Response(503)}
        elif failure == "metadata":  # another process receives the callback
            cookies = dict(world.browser.cookies)
            world = World(sharing=world)
            world.browser.cookies.update(cookies)
            world.op.replies = {"/.well-known/openid-configuration": lambda _: httpx2.Response(503)}
        elif failure == "id token":
            world.op.claims = {"nonce": "another"}
        elif failure == "no code":
            back = back.replace("code=", "other=")
        else:
            world.clock.advance(seconds=601)
        response = await world.come_back(back)
        assert (response.status_code, response.headers["location"]) == (303, "/account?tab=1")
        assert (world.reasons(), len(world.reasons("login.silent_failed"))) == ([], 1)
        assert (await world.browser.get("/read")).json()["data"]["note"] == "before"
        assert await world.subject() is None

    async def test_the_provider_gets_a_hint_of_the_logged_in_user(self) -> None:
        world = World()
        await world.login()
        (hint,) = asked(await world.start(prompt="none"))["id_token_hint"]
        assert b'"sub": "alice"' in urlsafe_b64decode(hint.split(".")[1] + "==")
        assert "id_token_hint" not in asked(await world.start())

    @pytest.mark.attack("10")
    async def test_the_same_error_in_an_interactive_login_is_an_error(self) -> None:
        world = World()
        await world.plant()
        world.op.response_params = {"code": None, "error": "login_required"}
        await world.assert_rejected(await world.login(), "login_required")

    @pytest.mark.attack("7")
    async def test_an_error_of_another_issuer_is_rejected(self) -> None:
        world = World()
        await world.plant()
        world.op.response_params = {"code": None, "error": "login_required", "iss": "https://evil.example"}
        await world.assert_rejected(await world.login(prompt="none"), "iss_mismatch")

    @pytest.mark.attack("56")
    async def test_it_redirects_to_no_other_site(self) -> None:
        world = World()
        world.op.response_params = {"code": None, "error": "login_required"}
        for target in ("https://evil.example/", "//evil.example", "/auth/login?prompt=none"):
            assert (await world.login(prompt="none", next=target)).headers["location"] == "/"

    async def test_a_refusal_is_single_use(self) -> None:
        world = World()
        world.op.response_params = {"code": None, "error": "login_required"}
        back = world.op.authorize(await world.start(prompt="none"))
        await world.come_back(back)
        assert (await world.come_back(back)).status_code == 400

    async def test_a_configured_prompt_does_not_override_prompt_none(self) -> None:
        world = World(provider={"authorization_params": {"prompt": "select_account"}})
        assert asked(await world.start(prompt="none"))["prompt"] == ["none"]


@pytest.mark.attack("oidcc-client-test-3rd-party-init-login")
class TestThirdPartyInitiatedLogin:
    async def begin(self, world: World, body: str, **headers: str) -> Any:
        async with world.new_browser() as cross_site:
            return await cross_site.post("/auth/login", content=body, headers={**FORM, **headers})

    async def test_it_can_start_by_post(self) -> None:
        world = World()
        body = f"iss={ISSUER}&login_hint=alice&target_link_uri={world.public_url}/account"
        sent_on = await self.begin(world, body)
        assert sent_on.status_code == 303
        assert "set-cookie" not in sent_on.headers
        response = await world.browser.get(sent_on.headers["location"], headers=GET_PAGE)
        assert asked(response.headers["location"])["login_hint"] == ["alice"]
        assert (await world.come_back(world.op.authorize(response.headers["location"]))).headers["location"] == "/account"

    @pytest.mark.attack("12")
    async def test_a_page_that_posts_repeatedly_does_not_fill_the_cookie_jar(self) -> None:
        world = World()
        await world.login()
        for _ in range(15):
            sent_on = await self.begin(world, f"iss={ISSUER}")
            world.clock.advance(seconds=1)
            await world.browser.get(sent_on.headers["location"], headers={**GET_PAGE, "sec-fetch-site": "cross-site"})
        assert len([name for name in world.browser.cookies if name.startswith("login-8000-")]) == 10
        assert await world.subject() == "alice"

    async def test_the_session_is_neither_read_nor_changed(self) -> None:
        world = World()
        await world.plant()
        events = len(world.events)
        response = await world.browser.post("/auth/login", content=f"iss={ISSUER}", headers=FORM)
        cookie = world.browser.cookies.get("session-8000")
        assert (response.status_code, cookie, len(world.events)) == (303, world.planted, events)

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ("", "login_parameter"),
            ("login_hint=alice", "login_parameter"),
            ("iss=https://evil.example", "unknown_issuer"),
            (f"iss={ISSUER}/", "unknown_issuer"),
            (f"iss={ISSUER}&iss={ISSUER}", "parameter_repeated"),
            (f"iss={ISSUER}&login_hint=%00", "login_parameter"),
            (f"iss={ISSUER}&target_link_uri=%0d%0aset-cookie:x", "login_parameter"),
            (f"iss={ISSUER}&target_link_uri={'x' * 2049}", "login_parameter"),
            (f"iss={ISSUER}&x={'x' * 20_000}", "body_too_large"),
        ],
    )
    async def test_invalid_requests_are_refused(self, body: str, reason: str) -> None:
        world = World()
        response = await self.begin(world, body)
        assert (response.status_code, world.reasons()) == (400, [reason])
        assert "set-cookie" not in response.headers

    async def test_the_target_must_be_an_own_page(self) -> None:
        world = World()
        for target in ("https://evil.example/account", f"{world.public_url}@evil.example/", f"{world.public_url}/auth/logout"):
            sent_on = await self.begin(world, f"iss={ISSUER}&target_link_uri={target}")
            url = (await world.browser.get(sent_on.headers["location"], headers=GET_PAGE)).headers["location"]
            assert (await world.come_back(world.op.authorize(url))).headers["location"] == "/"

    async def test_a_post_can_set_no_other_parameters(self) -> None:
        world = World()
        sent_on = await self.begin(world, f"iss={ISSUER}&prompt=none&max_age=0&next=/x&provider=default")
        assert sent_on.headers["location"] == f"/auth/login?iss={'https%3A%2F%2Fop.example'}"

    async def test_a_frame_is_refused(self) -> None:
        world = World()
        sent_on = await self.begin(world, f"iss={ISSUER}", **{"sec-fetch-dest": "iframe"})
        framed = await world.browser.get(sent_on.headers["location"], headers={**GET_PAGE, "sec-fetch-dest": "iframe"})
        assert framed.status_code == 403

    async def test_a_json_body_is_refused(self) -> None:
        world = World()
        response = await self.begin(world, "{}", **{"content-type": "application/json"})
        assert (response.status_code, world.reasons()) == (400, ["content_type"])


@pytest.mark.parametrize(
    "change",
    [
        {"authorization_params": {"max_age": "5"}},
        {"authorization_params": {"acr_values": "phr"}},
        {"authorization_params": {"prompt": "none"}},
        {"authorization_params": {"audience": ""}},
        {"authorization_params": {"audience": "x" * 2049}},
        {"authorization_params": {"response_mode": "query"}},
        {"response_mode": "fragment"},
        {"pushed_authorization_requests": "always"},
        {"max_age": -1},
        {"acr_values": ("a b",)},
        {"acr_values": "phr"},
    ],
)
def test_contradictory_configurations_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        ProviderFactory.build(**change)
