"""Options for providers that follow the specifications in unusual ways."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import httpx2
import pytest
from litestar import get

from session_core import ConfigurationError, Identity, Session, SessionHandle
from session_core.oidc import OAuth2Provider, OidcConfig, Tokens
from session_core.sealing import SealingKeys
from tests.session_core.oidc.fake_op import (
    CLIENT_ID,
    CLIENT_SECRET,
    GET_PAGE,
    GONE,
    ISSUER,
    OTHER_RSA_KEY,
    RSA_KEY,
    World,
    public_jwk,
)  # fmt: skip
from tests.session_core.oidc.plain_op import PlainOp, plain_provider
from tests.support.factories import ProviderFactory
from tests.support.sessions import AppSession

pytestmark = pytest.mark.anyio

SAME_ORIGIN = {"sec-fetch-site": "same-origin"}
PAGE = {**GET_PAGE, "sec-fetch-site": "same-origin", "accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
POSTED = {
    "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "accept": "text/html",
    "origin": ISSUER, "content-type": "application/x-www-form-urlencoded",
}  # fmt: skip


def asked(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query, keep_blank_values=True).items()}


class TestMetadata:
    async def test_metadata_can_come_from_another_url(self) -> None:
        world = World(provider={"metadata_url": f"{ISSUER}/b2c/policy/metadata?p=one"})
        world.op.replies["/b2c/policy/metadata"] = lambda _: httpx2.Response(200, json=world.op.configuration())
        assert (await world.login()).status_code == 303
        assert world.op.count("/.well-known/openid-configuration") == 0

    async def test_metadata_of_another_issuer_is_refused(self) -> None:
        world = World(provider={"metadata_url": f"{ISSUER}/elsewhere"})
        world.op.metadata = {"issuer": "https://other.example"}
        world.op.replies["/elsewhere"] = lambda _: httpx2.Response(200, json=world.op.configuration())
        assert (await world.browser.get("/auth/login", headers=GET_PAGE)).status_code == 503
        assert world.reasons() == ["discovery_issuer_mismatch"]

    async def test_given_metadata_are_not_fetched(self) -> None:
        given = {name: f"{ISSUER}/{path}" for name, path in
                 {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "jwks"}.items()}  # fmt: skip
        world = World(provider={"metadata": given})
        assert (await world.login()).status_code == 303
        assert {call.url.path for call in world.op.calls} == {"/token", "/jwks"}
        assert (await world.browser.post("/auth/logout", headers=SAME_ORIGIN)).headers["location"] == "/"

    @pytest.mark.parametrize(
        "options",
        [
            {"metadata": {}},
            {"metadata": {"authorization_endpoint": "http://a.example", "token_endpoint": ISSUER, "jwks_uri": ISSUER}},
            {
                "metadata": {
                    "issuer": "https://b.example",
                    "authorization_endpoint": ISSUER,
                    "token_endpoint": ISSUER,
                    "jwks_uri": ISSUER,
                }
            },
            {"metadata_url": "http://op.example/metadata"},
            {
                "metadata_url": ISSUER,
                "metadata": {"authorization_endpoint": ISSUER, "token_endpoint": ISSUER, "jwks_uri": ISSUER},
            },
            {"end_session_endpoint": "javascript:alert(1)"},
            {"logout_params": {"id_token_hint": "x"}},
            {"logout_params": {"a": "x\n"}},
            {"logout_return_param": "a b"},
            {"link_params": ["state"]},
            {"link_params": ["max_age"]},
            {"link_params": ["prompt"]},
            {"link_params": ["next"]},
            {"link_params": "kc_idp_hint"},
            {"posted_user": True},
            {"subject_claim": ""},
            {"clock_tolerance_seconds": 301},
            {"tenants": ["00000000-0000-0000-0000-000000000001"]},
            {"issuer": "https://login.example/{tenantid}/v2.0", "tenants": ["common"], "metadata_url": ISSUER},
            {"issuer": "https://login.example/{tenantid}/v2.0", "tenants": ["00000000-0000-0000-0000-000000000001"]},
            {"issuer": "https://login.example/{tenantid}/v2.0"},
        ],
        ids=str,
    )
    def test_invalid_options_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError):
            ProviderFactory.build(**options)


class TestLogout:
    async def test_a_logout_url_with_other_parameter_names(self) -> None:
        """As Cognito documents it."""
        options = {"end_session_endpoint": "https://shop.auth.example/logout", "logout_return_param": "logout_uri"}
        world = World(provider=options)
        world.op.metadata = {"end_session_endpoint": GONE}
        await world.login()
        url = (await world.browser.post("/auth/logout", headers=SAME_ORIGIN)).headers["location"]
        assert url.startswith("https://shop.auth.example/logout?")
        query = asked(url)
        assert (query["client_id"], query["logout_uri"]) == (CLIENT_ID, "http://127.0.0.1:8000/")
        assert "post_logout_redirect_uri" not in query

    async def test_additional_logout_parameters_are_sent(self) -> None:
        """As Auth0 documents it."""
        world = World(provider={"logout_params": {"federated": ""}})
        await world.login()
        url = (await world.browser.post("/auth/logout", headers=SAME_ORIGIN)).headers["location"]
        assert url.startswith(f"{ISSUER}/end?")
        assert asked(url)["federated"] == ""

    async def test_an_id_token_too_long_for_a_url_is_posted(self) -> None:
        world = World()
        world.op.claims = {"groups": ["g" * 100] * 80}
        await world.login()
        response = await world.browser.post("/auth/logout", headers=PAGE)
        assert (response.status_code, response.headers["content-type"].partition(";")[0]) == (200, "text/html")
        assert f'<form method="post" action="{ISSUER}/end">' in response.text
        fields = {name: unescape(value) for name, value in re.findall(r'name="([^"]+)" value="([^"]*)"', response.text)}
        assert set(fields) == {"client_id", "post_logout_redirect_uri", "state", "id_token_hint"}
        assert len(fields["id_token_hint"]) > 6000
        assert "form-action" not in response.headers["content-security-policy"]
        assert "script-src 'sha256-" in response.headers["content-security-policy"]
        assert await world.subject() is None

    async def test_programs_get_the_form_as_json_and_a_url_without_the_token(self) -> None:
        world = World()
        world.op.claims = {"groups": ["g" * 100] * 80}
        await world.login()
        answer = (await world.browser.post("/auth/logout", headers={**SAME_ORIGIN, "accept": "application/json"})).json()
        assert "id_token_hint" not in asked(answer["logout_url"])
        assert answer["logout_form"]["action"] == f"{ISSUER}/end"
        assert len(answer["logout_form"]["fields"]["id_token_hint"]) > 6000


class TestLinkParameters:
    async def test_a_link_can_set_the_configured_parameters(self) -> None:
        world = World(provider={"link_params": ["kc_idp_hint", "organization"]})
        query = asked(await world.start(None, kc_idp_hint="google", screen_hint="signup"))
        assert query["kc_idp_hint"] == "google"
        assert not {"organization", "screen_hint"} & set(query)

    async def test_a_link_parameter_applies_only_to_its_provider(self) -> None:
        plain = PlainOp()
        world = World(
            provider={"link_params": ["kc_idp_hint"]}, beside=lambda _: [(plain_provider(link_params=["allow_signup"]), plain)]
        )
        response = await world.browser.get("/auth/login/git?kc_idp_hint=x&allow_signup=false", headers=GET_PAGE)
        query = asked(response.headers["location"])
        assert (query["allow_signup"], "kc_idp_hint" in query) == ("false", False)
        page = await world.browser.get("/auth/login?kc_idp_hint=a%26b&other=1", headers=GET_PAGE)
        assert 'href="/auth/login/git?kc_idp_hint=a%26b"' in page.text

    @pytest.mark.parametrize(
        "query", ["kc_idp_hint=a&kc_idp_hint=b", "kc_idp_hint=", "kc_idp_hint=a%0d", "kc_idp_hint=" + "x" * 257]
    )
    async def test_invalid_values_are_refused(self, query: str) -> None:
        world = World(provider={"link_params": ["kc_idp_hint"]})
        assert (await world.browser.get(f"/auth/login?{query}", headers=GET_PAGE)).status_code == 400


class TestClientSecret:
    @pytest.mark.parametrize("kind", ["plain", "async"])
    async def test_a_secret_function_is_called_for_every_request(self, kind: str) -> None:
        made: list[str] = []

        def secret() -> str:
            made.append(CLIENT_SECRET)
            return CLIENT_SECRET

        async def slow_secret() -> str:
            await asyncio.sleep(0)
            return secret()

        world = World(provider={"client_secret": secret if kind == "plain" else slow_secret})
        for number in (1, 2):
            assert (await world.login(world.new_browser())).status_code == 303
            assert len(made) == number

    @pytest.mark.parametrize("secret", [lambda: "", lambda: None, lambda: 1 / 0])
    async def test_a_function_without_a_secret_fails_the_login(self, secret: Callable[[], Any]) -> None:
        world = World(provider={"client_secret": secret})
        assert (await world.login()).status_code == 502
        assert world.reasons() == ["client_secret_unavailable"]
        assert world.op.count("/token") == 0


class TestPostedUser:
    USER = json.dumps({"name": {"firstName": "Ada", "lastName": "L"}, "email": "ada@example.org"})

    async def claims_of_a_login(self, user: str | None, **options: Any) -> Mapping[str, Any]:
        seen: list[Mapping[str, Any]] = []

        async def enter(identity: Identity, claims: Mapping[str, Any], session: SessionHandle[Any]) -> None:
            seen.append(claims)

        world = World(public_url="https://app.example.org", provider={"response_mode": "form_post", **options}, on_login=enter)
        _, given = world.op.respond(await world.start())
        form = given if user is None else {**given, "user": user}
        jar = world.browser.cookies
        sent = {name: jar[name] for name in jar if name.startswith("__Host-login-post-")}
        async with world.new_browser(cookies=sent) as cross_site:
            response = await cross_site.post("/auth/callback", content=urlencode(form), headers=POSTED)
        jar.extract_cookies(response)
        assert (await world.come_back(response.headers["location"])).status_code == 303
        return seen[0]

    async def test_the_posted_user_is_a_claim_when_configured(self) -> None:
        claims = await self.claims_of_a_login(self.USER, posted_user=True)
        assert claims["user"]["name"]["firstName"] == "Ada"
        assert claims["sub"] == "alice"

    @pytest.mark.parametrize("user", [None, "", "Ada", "[]", '{"a":1,"a":2}', json.dumps({"name": "x" * 1024})])
    async def test_a_malformed_posted_user_counts_as_absent(self, user: str | None) -> None:
        assert "user" not in await self.claims_of_a_login(user, posted_user=True)

    @pytest.mark.parametrize(("count", "kept"), [(200, True), (900, False)])
    async def test_a_long_name_in_any_script_fits_or_is_omitted(self, count: int, kept: bool) -> None:
        user = json.dumps({"name": {"firstName": "\U0001f600" * count}}, ensure_ascii=False)
        assert ("user" in await self.claims_of_a_login(user, posted_user=True)) == kept

    async def test_the_posted_user_is_ignored_by_default(self) -> None:
        assert "user" not in await self.claims_of_a_login(self.USER)


class TestWithout:
    async def test_pkce_can_be_omitted(self) -> None:
        world = World(provider={"accept_code_injection_without_pkce": True})
        url = await world.start()
        assert not {"code_challenge", "code_challenge_method"} & set(asked(url))

        def token(request: httpx2.Request) -> httpx2.Response:
            given = world.op.form_of(request)
            assert "code_verifier" not in given
            nonce = {"nonce": world.op.codes[given["code"]]["nonce"]}
            answer = {"access_token": "at-1", "token_type": "Bearer", "id_token": world.op.id_token(nonce, "at-1")}
            return httpx2.Response(200, json=answer)

        world.op.replies["/token"] = token
        assert (await world.come_back(world.op.authorize(url))).status_code == 303

    async def test_the_nonce_can_be_omitted(self) -> None:
        world = World(provider={"accept_id_token_replay_without_nonce": True})
        url = await world.start()
        assert "nonce" not in asked(url)
        back = world.op.authorize(url)
        (code,) = world.op.codes
        world.op.codes[code]["nonce"] = "of-another-login"
        world.op.claims = {"nonce": GONE}
        assert (await world.come_back(back)).status_code == 303

    async def test_both_are_required_by_default(self) -> None:
        world = World()
        world.op.claims = {"nonce": GONE}
        assert (await world.login()).status_code == 400
        assert world.reasons() == ["nonce_missing"]


@get("/userinfo")
async def userinfo(session: Session[AppSession], tokens: Tokens) -> dict[str, Any]:
    return await tokens.userinfo(session)


class TestSubject:
    async def test_plain_oauth2_takes_the_subject_from_a_nested_claim(self) -> None:
        """As X documents it."""
        plain = PlainOp()
        plain.user = {"data": {"id": "2244994945", "username": "ada"}}
        world = World(beside=lambda _: [(plain_provider(subject_claim="data.id"), plain)])
        response = await world.browser.get("/auth/login/git", headers=GET_PAGE)
        assert (await world.come_back(plain.authorize(response.headers["location"]))).status_code == 303
        assert await world.subject() == "2244994945"

    async def test_the_subject_can_be_another_claim_of_the_id_token(self) -> None:
        world = World(provider={"subject_claim": "oid"}, handlers=[userinfo])
        world.op.claims = {"oid": "8c5e"}
        assert (await world.login()).status_code == 303
        assert await world.subject() == "8c5e"
        assert (await world.browser.get("/userinfo")).json()["sub"] == "alice"
        # The logout token names no session, and its `sub` is no local user: the provider gets an error.
        assert (await world.send_logout(world.op.logout_token(sid=GONE, sub="alice"))).status_code == 400
        assert await world.subject() == "8c5e"
        assert (await world.send_logout(world.op.logout_token(sub="alice"))).status_code == 200
        assert await world.subject() is None

    @pytest.mark.parametrize("value", [GONE, "", None, 1.5, True, ["a"], "x" * 256])
    async def test_a_malformed_subject_is_refused(self, value: Any) -> None:
        world = World(provider={"subject_claim": "oid"})
        world.op.claims = {"oid": value}
        assert (await world.login()).status_code == 400
        assert world.reasons()[0] in {"sub_missing", "sub_malformed"}

    async def test_the_subject_comes_from_signed_claims_only(self) -> None:
        world = World(provider={"subject_claim": "oid"})
        world.op.userinfo = {"oid": "admin"}
        assert (await world.login()).status_code == 400


class TestClockTolerance:
    @pytest.mark.parametrize(
        ("tolerance", "late", "status"),
        [(60, 61, 400), (120, 61, 303), (120, 121, 400), (300, 300, 303), (0, 0, 303), (0, 1, 400)],
    )
    async def test_an_id_token_is_accepted_within_the_clock_tolerance(self, tolerance: int, late: int, status: int) -> None:
        world = World(provider={"clock_tolerance_seconds": tolerance})
        world.op.claims = {"iat": world.clock.now() // 1000 + late}
        assert (await world.login()).status_code == status

    @pytest.mark.parametrize(("tolerance", "status"), [(60, 400), (120, 200)])
    async def test_a_logout_token_is_accepted_within_the_clock_tolerance(self, tolerance: int, status: int) -> None:
        world = World(provider={"clock_tolerance_seconds": tolerance})
        token = world.op.logout_token(iat=world.clock.now() // 1000 + 100)
        assert (await world.send_logout(token)).status_code == status


ENTRA = "https://op.example/{tenantid}/v2.0"
ONE, TWO, THIRD = (f"{number:08d}-0000-0000-0000-000000000000" for number in (1, 2, 3))


class EntraWorld(World):
    """One registration for several tenants, whose metadata contain a placeholder as issuer."""

    def __init__(self, tenants: Any = (ONE, TWO), **options: Any) -> None:
        provider = {"issuer": ENTRA, "metadata_url": f"{ISSUER}/organizations", "tenants": tenants, **options}
        super().__init__(provider=provider)
        self.op.metadata = {"issuer": ENTRA, "authorization_response_iss_parameter_supported": GONE}
        self.op.response_params = {"iss": None}
        self.op.replies["/organizations"] = lambda _: httpx2.Response(200, json=self.op.configuration())

    def of_tenant(self, tenant: str, **claims: Any) -> None:
        self.op.claims = {"tid": tenant, "iss": ENTRA.replace("{tenantid}", tenant), **claims}

    def issuer(self) -> str | None:
        (event,) = [event for event in self.events if event.name == "login.succeeded"][-1:]
        return event.identity.issuer if event.identity else None


@pytest.mark.attack("9")
class TestTenants:
    async def test_each_tenant_is_a_separate_issuer(self) -> None:
        world = EntraWorld()
        for tenant in (ONE, TWO):
            world.of_tenant(tenant)
            assert (await world.login()).status_code == 303
            assert world.issuer() == f"https://op.example/{tenant}/v2.0"

    @pytest.mark.parametrize(
        ("tenant", "claims", "reason"),
        [
            (THIRD, {}, "tenant_not_admitted"),
            (ONE, {"iss": f"https://op.example/{TWO}/v2.0"}, "iss_mismatch"),
            (ONE, {"iss": ENTRA}, "iss_mismatch"),
            (ONE, {"tid": GONE}, "tenant_not_admitted"),
            (ONE, {"tid": "{tenantid}", "iss": ENTRA}, "tenant_not_admitted"),
            (ONE, {"tid": ONE.upper() + "/../x"}, "tenant_not_admitted"),
        ],
    )
    async def test_a_token_of_another_issuer_is_refused(self, tenant: str, claims: dict[str, Any], reason: str) -> None:
        world = EntraWorld()
        world.of_tenant(tenant, **claims)
        assert (await world.login()).status_code == 400
        assert world.reasons() == [reason]

    async def test_a_function_can_decide(self) -> None:
        customers = {TWO}
        world = EntraWorld(lambda tenant: tenant in customers)
        world.of_tenant(ONE)
        assert (await world.login()).status_code == 400
        world.of_tenant(TWO)
        assert (await world.login()).status_code == 303

    async def test_a_key_of_another_issuer_is_refused(self) -> None:
        world = EntraWorld()
        world.of_tenant(ONE)
        consumers = public_jwk(RSA_KEY, "k1", issuer=f"https://op.example/{THIRD}/v2.0")
        world.op.jwks = [consumers]
        assert (await world.login()).status_code == 400
        assert world.reasons() == ["unknown_key"]

    @pytest.mark.parametrize("issuer", [ENTRA, f"https://op.example/{ONE}/v2.0"])
    async def test_a_key_of_all_issuers_or_of_this_one_is_accepted(self, issuer: str) -> None:
        world = EntraWorld()
        world.of_tenant(ONE)
        world.op.jwks = [public_jwk(OTHER_RSA_KEY, "k2", issuer=ENTRA), public_jwk(RSA_KEY, "k1", issuer=issuer)]
        assert (await world.login()).status_code == 303

    async def test_logouts_end_the_sessions_of_their_tenant(self) -> None:
        world = EntraWorld()
        world.of_tenant(ONE)
        await world.login()
        two = {"tid": TWO, "iss": f"https://op.example/{TWO}/v2.0"}
        assert (await world.send_logout(world.op.logout_token(**two))).status_code == 200
        frame = {"iss": two["iss"], "sid": "op-session-1"}
        assert (await world.browser.get("/auth/frontchannel-logout", params=frame)).status_code == 200
        assert await world.subject() == "alice"
        assert (await world.send_logout(world.op.logout_token(**{**two, "tid": THIRD}))).status_code == 400
        one = {"tid": ONE, "iss": f"https://op.example/{ONE}/v2.0"}
        assert (await world.send_logout(world.op.logout_token(**one))).status_code == 200
        assert await world.subject() is None

    async def test_the_issuer_in_a_response_is_checked(self) -> None:
        world = EntraWorld()
        world.of_tenant(ONE)
        world.op.response_params = {"iss": f"https://op.example/{THIRD}/v2.0"}
        assert (await world.login()).status_code == 400
        world.op.response_params = {"iss": f"https://op.example/{ONE}/v2.0"}
        assert (await world.login()).status_code == 303

    async def test_the_logout_goes_to_the_provider(self) -> None:
        world = EntraWorld()
        world.of_tenant(ONE)
        await world.login()
        response = await world.browser.post("/auth/logout", headers=SAME_ORIGIN)
        assert response.headers["location"].startswith(f"{ISSUER}/end?")

    def test_a_tenant_cannot_also_be_a_separate_provider(self) -> None:
        several = ProviderFactory.build(issuer=ENTRA, metadata_url=ISSUER, tenants=[ONE])
        single = ProviderFactory.build(id="one", issuer=f"https://op.example/{ONE}/v2.0")
        with pytest.raises(ConfigurationError, match="same issuer"):
            OidcConfig(providers=[single, several], public_url="https://app.example", sealing=SealingKeys([b"k" * 32]))


def test_the_provider_of_an_identity_is_found() -> None:
    one = ProviderFactory.build()
    two: OAuth2Provider = plain_provider()
    config = OidcConfig(providers=[one, two], public_url="https://app.example", sealing=SealingKeys([b"k" * 32]))
    assert (config.provider_of(ISSUER), config.provider_of(two.issuer), config.provider_of("https://x.example")) == (
        one,
        two,
        None,
    )


async def test_the_page_that_posts_a_logout_escapes_its_values() -> None:
    world = World(provider={"logout_params": {"a": '"><script>'}})
    world.op.claims = {"groups": ["g" * 100] * 80}
    await world.login()
    response: httpx.Response = await world.browser.post("/auth/logout", headers=PAGE)
    assert response.text.count("<script>") == 1
