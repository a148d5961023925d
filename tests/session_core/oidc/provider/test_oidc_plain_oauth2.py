"""Providers of plain OAuth 2.0 with a user endpoint: what proves the user, and what is refused without proof."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import httpx2
import pytest
from litestar import get

from session_core import ConfigurationError, Identity, Session, SessionHandle
from session_core.oidc import Tokens
from session_core.oidc.provider.oauth2 import FetchJson
from tests.session_core.oidc.fake_op import GET_PAGE, World
from tests.session_core.oidc.plain_op import HOST, PLAIN_ISSUER, PlainOp, plain_provider
from tests.support.sessions import AppSession

pytestmark = pytest.mark.anyio


@get("/token")
async def token(session: Session[AppSession], tokens: Tokens) -> str:
    return await tokens.access_token(session)


@get("/userinfo")
async def userinfo(session: Session[AppSession], tokens: Tokens) -> dict[str, Any]:
    return await tokens.userinfo(session)


class PlainWorld(World):
    def __init__(self, changes: dict[str, Any] | None = None, **options: Any) -> None:
        self.plain = PlainOp()
        beside = [(plain_provider(**(changes or {})), self.plain)]
        super().__init__(beside=lambda _: beside, handlers=[token, userinfo], **options)

    async def begin(self, **params: str) -> str:
        response = await self.browser.get("/auth/login/git", params=params, headers=GET_PAGE)
        assert response.status_code == 303, response.text
        return response.headers["location"]

    async def enter(self, **params: str) -> httpx.Response:
        return await self.come_back(self.plain.authorize(await self.begin(**params)))

    def identity(self) -> Identity | None:
        return next(event.identity for event in reversed(self.events) if event.name == "login.succeeded")


@pytest.fixture
def world() -> PlainWorld:
    return PlainWorld()


async def test_a_login_sets_the_identity(world: PlainWorld) -> None:
    response = await world.enter(next="/account")
    assert (response.status_code, response.headers["location"]) == (303, "/account")
    assert world.identity() == Identity(issuer=PLAIN_ISSUER, subject="583231")
    assert not any(call.url.path.startswith("/.well-known") for call in world.plain.calls)


@pytest.mark.attack("15")
async def test_the_authorization_request_has_pkce_and_state_and_no_openid_parameters(world: PlainWorld) -> None:
    url = await world.begin()
    asked = parse_qs(urlsplit(url).query)
    assert url.startswith(f"{HOST}/login/oauth/authorize?")
    assert set(asked) == {
        "response_type", "client_id", "redirect_uri", "scope", "state", "code_challenge", "code_challenge_method",
    }  # fmt: skip
    assert (asked["scope"], asked["code_challenge_method"]) == (["read:user user:email"], ["S256"])
    assert asked["redirect_uri"] == ["http://127.0.0.1:8000/auth/callback/git"]


async def test_scopes_can_have_commas_or_be_omitted() -> None:
    with_commas = PlainWorld({"scope_separator": ","})
    assert "scope=read%3Auser%2Cuser%3Aemail" in await with_commas.begin()
    assert "scope=" not in await PlainWorld({"scopes": ()}).begin()


@pytest.mark.parametrize("subject", [583231, "u-1", 0, 2**60])
async def test_subjects_are_accepted(world: PlainWorld, subject: object) -> None:
    world.plain.user = {"id": subject}
    assert (await world.enter()).status_code == 303
    assert await world.subject() == str(subject)


@pytest.mark.attack("25")
@pytest.mark.parametrize("subject", [None, True, False, 1.0, "", "a\n", "é", "x" * 256, [1], {"id": 1}])
async def test_invalid_subjects_are_refused(world: PlainWorld, subject: object) -> None:
    await world.plant()
    world.plain.user = {"id": subject}
    await world.assert_rejected(await world.enter(), "sub_missing" if subject is None else "sub_malformed")


async def test_a_user_without_the_subject_claim_is_refused(world: PlainWorld) -> None:
    await world.plant()
    world.plain.user = {"login": "octocat"}
    await world.assert_rejected(await world.enter(), "sub_missing")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (httpx2.Response(401, json={"message": "Bad credentials"}), "userinfo_unauthorized"),
        (httpx2.Response(500, text="<script>"), "userinfo_status"),
        (httpx2.Response(302, headers={"location": "https://evil.example"}), "userinfo_status"),
        (httpx2.Response(200, text='{"id": 1}'), "userinfo_malformed"),
        (httpx2.Response(200, json=[{"id": 1}]), "userinfo_malformed"),
        (httpx2.Response(200, content=b'{"id": 1, "id": 2}', headers={"content-type": "application/json"}), "userinfo_malformed"),
        (httpx2.Response(200, content=b" " * 2_000_000, headers={"content-type": "application/json"}), "userinfo_too_large"),
    ],
)
async def test_bad_responses_of_the_user_endpoint_are_refused(world: PlainWorld, reply: httpx2.Response, reason: str) -> None:
    await world.plant()
    world.plain.user_reply = reply
    await world.assert_rejected(await world.enter(), reason)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (httpx2.Response(200, text="access_token=gho_1&token_type=bearer",
                         headers={"content-type": "application/x-www-form-urlencoded"}), "token_malformed"),
        (httpx2.Response(200, json={"error": "bad_verification_code"}), "invalid_grant"),
        (httpx2.Response(200, json={"error": "<script>"}), "token_status"),
        (httpx2.Response(200, json={"access_token": "gho_1"}), "token_type"),
        (httpx2.Response(200, json={"access_token": "gho_1", "token_type": "mac"}), "token_type"),
        (httpx2.Response(200, json={"token_type": "bearer"}), "access_token_missing"),
    ],
)  # fmt: skip
async def test_bad_responses_of_the_token_endpoint_are_refused(world: PlainWorld, reply: httpx2.Response, reason: str) -> None:
    await world.plant()
    world.plain.token_reply = reply
    await world.assert_rejected(await world.enter(), reason)


@pytest.mark.attack("16")
async def test_a_stolen_code_in_another_browser_is_rejected(world: PlainWorld) -> None:
    stolen = parse_qs(urlsplit(world.plain.authorize(await world.begin())).query)["code"][0]
    await world.plant()
    mine = parse_qs(urlsplit(world.plain.authorize(await world.begin())).query)
    response = await world.come_back(f"/auth/callback/git?code={stolen}&state={mine['state'][0]}")
    await world.assert_rejected(response, "invalid_grant")


@pytest.mark.attack("3")
async def test_an_unsolicited_callback_is_rejected(world: PlainWorld) -> None:
    attackers = world.plain.authorize(await world.begin())
    world.browser = world.new_browser()
    await world.plant()
    await world.assert_rejected(await world.come_back(attackers), "state_unknown")


async def test_an_id_token_of_such_a_provider_is_ignored(world: PlainWorld) -> None:
    forged = world.op.id_token({"nonce": "n"}, "gho_1")
    world.plain.answer["id_token"] = forged
    assert (await world.enter()).status_code == 303
    assert world.identity() == Identity(issuer=PLAIN_ISSUER, subject="583231")
    response = await world.browser.post("/auth/logout", headers={"sec-fetch-site": "same-origin"})
    assert (response.status_code, response.headers["location"]) == (303, "/")


async def test_an_id_token_of_such_a_provider_is_not_stored(world: PlainWorld) -> None:
    world.plain.token_reply = httpx2.Response(200, json={**world.plain.answer, "id_token": "a.b.c"})
    party = world.oidc.relying_parties.find("git")
    assert party is not None
    answer = (await party.connection.token_endpoint.refresh(f"{HOST}/login/oauth/access_token", refresh_token="ghr_1")).tokens()
    assert (answer.access_token, answer.id_token) == ("gho_1", None)


async def test_an_access_token_without_expiry_fetches_userinfo_later(world: PlainWorld) -> None:
    await world.enter()
    world.clock.advance(seconds=1800)
    assert (await world.browser.get("/token")).text == "gho_1"
    assert (await world.browser.get("/userinfo")).json()["login"] == "octocat"
    world.plain.user = {"id": 1}
    assert (await world.browser.get("/userinfo")).status_code == 502


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"max_age": "60"}, "step_up_unsupported"),
        ({"acr_values": "phr"}, "step_up_unsupported"),
    ],
)
async def test_requests_it_cannot_prove_are_refused(world: PlainWorld, params: dict[str, str], reason: str) -> None:
    response = await world.browser.get("/auth/login/git", params=params, headers=GET_PAGE)
    assert (response.status_code, "set-cookie" in response.headers, world.reasons()) == (400, False, [reason])


@pytest.mark.attack("73")
@pytest.mark.parametrize(
    ("changes", "prompt"), [({}, "login"), ({"reauthentication_prompt": "select_account"}, "select_account")]
)
async def test_a_browser_that_was_signed_out_gets_a_prompt(changes: dict[str, Any], prompt: str) -> None:
    """Without auth_time the application cannot verify a new authentication."""
    world = PlainWorld(changes)
    await world.enter()
    identity = world.identity()
    assert identity is not None
    await world.sessions.sessions.revoke_all(identity)
    query = parse_qs(urlsplit(await world.begin()).query)
    assert (query["prompt"], "max_age" in query) == ([prompt], False)
    assert (await world.enter()).status_code == 303


async def test_a_silent_login_returns_to_the_page(world: PlainWorld) -> None:
    response = await world.browser.get("/auth/login/git", params={"prompt": "none"}, headers=GET_PAGE)
    assert (response.status_code, response.headers["location"], "set-cookie" in response.headers) == (303, "/", False)
    assert world.reasons("login.silent_failed") == ["silent_unsupported"]


@pytest.mark.attack("7")
async def test_the_iss_of_such_a_provider_is_checked() -> None:
    world = PlainWorld()
    world.plain.response_params = {"iss": "https://evil.example"}
    await world.plant()
    await world.assert_rejected(await world.enter(), "iss_mismatch")
    told = PlainWorld({"issuer": "https://git.example", "response_issuer": PLAIN_ISSUER})
    await told.plant()
    await told.assert_rejected(await told.enter(), "iss_missing")
    told.plain.response_params = {"iss": PLAIN_ISSUER}
    assert (await told.enter()).status_code == 303


async def emails(user: Mapping[str, Any], fetch: FetchJson) -> dict[str, Any]:
    found = await fetch(f"{HOST}/api/user/emails")
    email = next(each["email"] for each in found if each["primary"] and each["verified"])
    return {"name": user["login"], "email": email, "id": "another user"}


async def test_claims_can_come_from_an_additional_endpoint() -> None:
    seen: dict[str, Any] = {}

    async def on_login(identity: Identity, claims: Mapping[str, Any], session: SessionHandle[Any]) -> None:
        seen.update(claims, subject=identity.subject)

    world = PlainWorld({"claims": emails}, on_login=on_login)
    assert (await world.enter()).status_code == 303
    assert (seen["subject"], seen["name"], seen["email"]) == ("583231", "octocat", "octo@example.org")


@pytest.mark.parametrize(
    "address",
    ["http://git.example/api/user/emails", "https://evil.example/api/user/emails", "https://git.example:444/api/user/emails"],
)
async def test_the_token_is_not_sent_to_another_host_or_without_tls(address: str) -> None:
    async def careless(user: Mapping[str, Any], fetch: FetchJson) -> dict[str, Any]:
        return dict(await fetch(address))

    world = PlainWorld({"claims": careless})
    await world.plant()
    await world.assert_rejected(await world.enter(), "userinfo_address")
    assert (world.plain.count("/api/user/emails"), world.op.count("/api/user/emails")) == (0, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "git"},
        {"authorization_endpoint": "http://git.example/authorize"},
        {"token_endpoint": "https://user@git.example/token"},
        {"userinfo_endpoint": "/user"},
        {"revocation_endpoint": "http://git.example"},
        {"subject_claim": ""},
        {"scopes": ["a b"]},
        {"scopes": "repo"},
        {"scope_separator": ";"},
        {"pushed_authorization_requests": "required"},
        {"client_secret": None},
    ],
)
def test_contradictory_configurations_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        plain_provider(**change)
