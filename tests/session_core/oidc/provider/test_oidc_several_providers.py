"""Several providers: each has its own callback URL, and data of one is never accepted from or sent to another."""

from __future__ import annotations

import html
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from litestar import Litestar, get

from session_core import ConfigurationError, Session, SessionPlugin
from session_core.oidc import OidcConfig, OidcPlugin, OidcProvider, Tokens
from session_core.sealing import SealingKeys
from session_core.testing import FakeClock
from tests.session_core.oidc.fake_op import GET_PAGE, ISSUER, OTHER_RSA_KEY, FakeOp, World
from tests.session_core.oidc.plain_op import PlainOp, plain_provider
from tests.support.factories import ProviderFactory
from tests.support.sessions import AppSession, make_config

pytestmark = pytest.mark.anyio

OTHER = "https://other.example"
SAME_ORIGIN = {"sec-fetch-site": "same-origin"}


def other_provider(**changes: Any) -> OidcProvider:
    return ProviderFactory.build(**{"id": "other", "issuer": OTHER, **changes})


@get("/token")
async def token(session: Session[AppSession], tokens: Tokens) -> str:
    return await tokens.access_token(session)


@get("/userinfo")
async def userinfo(session: Session[AppSession], tokens: Tokens) -> dict[str, Any]:
    return await tokens.userinfo(session)


class TwoProviders(World):
    def __init__(self, **options: Any) -> None:
        self.made: list[FakeOp] = []

        def beside(clock: FakeClock) -> list[tuple[Any, Any]]:
            self.made = [FakeOp(clock, OTHER)]
            return [(other_provider(), self.made[0])]

        super().__init__(beside=beside, handlers=[token, userinfo], **options)

    @property
    def other(self) -> FakeOp:
        return self.made[0]

    async def start_at(self, path: str, **params: str) -> str:
        response = await self.browser.get(path, params=params, headers=GET_PAGE)
        assert response.status_code == 303, response.text
        return response.headers["location"]

    async def issuer(self) -> str | None:
        (event,) = [event for event in self.events if event.name == "login.succeeded"][-1:]
        return event.identity.issuer if event.identity else None


@pytest.fixture
def world() -> TwoProviders:
    return TwoProviders()


async def test_each_provider_has_its_own_redirect_uri(world: TwoProviders) -> None:
    first = parse_qs(urlsplit(await world.start_at("/auth/login", provider="default")).query)
    second = parse_qs(urlsplit(await world.start_at("/auth/login/other")).query)
    assert first["redirect_uri"] == ["http://127.0.0.1:8000/auth/callback"]
    assert second["redirect_uri"] == ["http://127.0.0.1:8000/auth/callback/other"]


@pytest.mark.parametrize(
    ("path", "params"),
    [("/auth/login/other", {}), ("/auth/login", {"provider": "other"}), ("/auth/login", {"iss": OTHER}),
     ("/auth/login/other", {"provider": "other", "iss": OTHER})],
)  # fmt: skip
async def test_a_link_can_name_a_provider(world: TwoProviders, path: str, params: dict[str, str]) -> None:
    url = await world.start_at(path, next="/account", **params)
    assert url.startswith(f"{OTHER}/authorize?")
    response = await world.come_back(world.other.authorize(url))
    assert (response.status_code, response.headers["location"]) == (303, "/account")
    assert (await world.subject(), await world.issuer()) == ("alice", OTHER)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/auth/login/other?provider=default", 400), (f"/auth/login/other?iss={ISSUER}", 400), ("/auth/login?provider=x", 400),
     ("/auth/login?iss=https://evil.example", 400), ("/auth/login/x", 404), ("/auth/login/..%2fother", 404)],
)  # fmt: skip
async def test_unknown_or_contradictory_names_are_refused(world: TwoProviders, path: str, status: int) -> None:
    response = await world.browser.get(path, headers=GET_PAGE)
    assert (response.status_code, "set-cookie" in response.headers) == (status, False)


async def test_a_user_chooses_when_no_provider_is_named(world: TwoProviders) -> None:
    response = await world.browser.get("/auth/login?next=/a%3Fb%3D1%26c%3D%22&prompt=login", headers=GET_PAGE)
    assert (response.status_code, "set-cookie" in response.headers) == (200, False)
    assert response.headers["cache-control"] == "no-store"
    assert '<a href="/auth/login?next=%2Fa%3Fb%3D1%26c%3D%22&amp;prompt=login&amp;provider=default">default</a>' in response.text
    assert '<a href="/auth/login/other?next=%2Fa%3Fb%3D1%26c%3D%22&amp;prompt=login">other</a>' in response.text


async def test_a_program_gets_the_list(world: TwoProviders) -> None:
    response = await world.browser.get("/auth/login", headers={"accept": "application/json"})
    assert response.json()["providers"][1] == {"id": "other", "title": "other", "href": "/auth/login/other"}


@pytest.mark.attack("56")
async def test_the_choice_page_escapes_its_values(world: TwoProviders) -> None:
    response = await world.browser.get('/auth/login?next="><script>alert(1)</script>', headers=GET_PAGE)
    assert "<script" not in response.text


async def test_a_login_without_a_provider_goes_to_the_provider_of_the_session(world: TwoProviders) -> None:
    await world.come_back(world.other.authorize(await world.start_at("/auth/login/other")))
    assert (await world.start_at("/auth/login", max_age="60")).startswith(f"{OTHER}/authorize?")


def again(response: Any) -> str:
    """Where "Try again" on the page of a failed login leads."""
    (address,) = re.findall(r'<a href="([^"]+)">Try again</a>', response.text)
    return html.unescape(address)


@pytest.mark.parametrize("provider", ["default", "other"])
@pytest.mark.parametrize("fault", ["cancelled", "expired", "unknown", "limit"])
async def test_try_again_keeps_the_chosen_provider(provider: str, fault: str) -> None:
    world = TwoProviders(config={"max_sessions_per_user": 1, "on_limit": "refuse"} if fault == "limit" else {})
    op = world.op if provider == "default" else world.other
    if fault == "limit":
        await world.come_back(op.authorize(await world.start_at("/auth/login", provider=provider)))
        world.browser.cookies.clear()
    back = httpx.URL(op.authorize(await world.start_at("/auth/login", provider=provider, next="/a?b=1")))
    if fault == "cancelled":
        back = back.copy_remove_param("code").copy_add_param("error", "access_denied")
    elif fault == "unknown":
        back = back.copy_set_param("state", "x" * 43)
    elif fault == "expired":
        world.clock.advance(minutes=11)
    failed = await world.come_back(str(back))
    assert failed.status_code in {400, 403}
    page = {} if fault == "unknown" else {"next": "/a?b=1"}  # the cookie that holds the page is what is missing
    assert dict(httpx.URL(again(failed)).params) == {**page, "provider": provider}
    leading = await world.browser.get(again(failed), headers=GET_PAGE)
    assert leading.headers["location"].startswith(f"{op.issuer}/authorize?")


@pytest.mark.attack("9")
class TestMixUp:
    async def test_a_code_of_one_provider_at_the_callback_of_the_other_is_rejected(self, world: TwoProviders) -> None:
        """The browser was sent to the honest provider; the attacker's provider redirects with that code as its own response."""
        await world.plant()
        back = world.op.authorize(await world.start_at("/auth/login", provider="default"))
        await world.assert_rejected(await world.come_back(back.replace("/callback?", "/callback/other?")), "provider_mismatch")
        assert world.other.count("/token") == world.op.count("/token") == 0

    async def test_a_state_of_one_login_with_a_code_of_the_other_provider_is_rejected(self, world: TwoProviders) -> None:
        await world.plant()
        honest = world.op.authorize(await world.start_at("/auth/login", provider="default"))
        (code,) = parse_qs(urlsplit(honest).query)["code"]
        world.other.response_params = {"code": code}
        response = await world.come_back(world.other.authorize(await world.start_at("/auth/login/other")))
        # The attacker's provider gets a code without its PKCE verifier, which it cannot redeem.
        assert response.status_code == 502
        sent = [parse_qs(call.content.decode()) for call in world.other.calls if call.url.path == "/token"]
        challenge = world.op.codes[code]["code_challenge"]
        assert sent
        assert all(world.op.codes[code] and each["code_verifier"][0] not in challenge for each in sent)
        assert world.op.count("/token") == 0
        assert await world.subject() is None

    async def test_a_response_with_the_other_issuer_is_rejected(self, world: TwoProviders) -> None:
        await world.plant()
        world.other.response_params = {"iss": ISSUER}
        back = world.other.authorize(await world.start_at("/auth/login/other"))
        await world.assert_rejected(await world.come_back(back), "iss_mismatch")
        assert world.other.count("/token") == 0

    async def test_a_missing_iss_is_rejected_when_the_provider_announces_it(self, world: TwoProviders) -> None:
        await world.plant()
        world.other.response_params = {"iss": None}
        back = world.other.authorize(await world.start_at("/auth/login/other"))
        await world.assert_rejected(await world.come_back(back), "iss_missing")

    async def test_an_id_token_of_the_other_issuer_is_rejected(self, world: TwoProviders) -> None:
        await world.plant()
        world.other.claims = {"iss": ISSUER}
        back = world.other.authorize(await world.start_at("/auth/login/other"))
        await world.assert_rejected(await world.come_back(back), "iss_mismatch")

    async def test_metadata_with_the_others_token_endpoint_give_no_login(self, world: TwoProviders) -> None:
        """The honest provider never issued the code of the attacker's login."""
        await world.plant()
        world.other.metadata = {"token_endpoint": f"{ISSUER}/token"}
        back = world.other.authorize(await world.start_at("/auth/login/other"))
        await world.assert_rejected(await world.come_back(back), "invalid_grant")

    async def test_an_unknown_provider_in_the_url_is_a_404(self, world: TwoProviders) -> None:
        back = world.other.authorize(await world.start_at("/auth/login/other"))
        assert (await world.come_back(back.replace("/other?", "/x?"))).status_code == 404
        assert (await world.come_back(back.replace("/other?", "/default?"))).status_code == 404
        assert (await world.come_back(back)).status_code == 303


@pytest.mark.attack("64")
async def test_the_same_subject_of_another_issuer_is_another_user(world: TwoProviders) -> None:
    await world.come_back(world.op.authorize(await world.start_at("/auth/login", provider="default")))
    await world.browser.patch("/assign", json={"note": "the first alice's"})
    await world.come_back(world.other.authorize(await world.start_at("/auth/login/other")))
    state = (await world.browser.get("/read")).json()
    assert (state["subject"], state["data"]["note"]) == ("alice", "")


async def test_tabs_of_both_providers_complete_in_any_order(world: TwoProviders) -> None:
    one = world.op.authorize(await world.start_at("/auth/login", provider="default", next="/one"))
    two = world.other.authorize(await world.start_at("/auth/login/other", next="/two"))
    assert (await world.come_back(two)).headers["location"] == "/two"
    assert (await world.come_back(one)).headers["location"] == "/one"


async def test_refresh_and_userinfo_go_to_the_provider_of_the_session(world: TwoProviders) -> None:
    world.other.refreshable = True
    await world.come_back(world.other.authorize(await world.start_at("/auth/login/other")))
    world.clock.advance(seconds=301)
    assert (await world.browser.get("/token")).text == "at-2"
    assert (await world.browser.get("/userinfo")).json()["sub"] == "alice"
    assert (world.op.count("/token"), world.op.count("/userinfo")) == (0, 0)


async def test_the_logout_goes_to_the_provider_of_the_session(world: TwoProviders) -> None:
    await world.come_back(world.other.authorize(await world.start_at("/auth/login/other")))
    response = await world.browser.post("/auth/logout", headers=SAME_ORIGIN)
    assert response.headers["location"].startswith(f"{OTHER}/end?")
    assert "id_token_hint" in response.headers["location"]
    assert await world.subject() is None


class TestLogoutByTheProvider:
    @pytest.fixture
    async def world(self) -> TwoProviders:
        world = TwoProviders()
        await world.come_back(world.other.authorize(await world.start_at("/auth/login/other")))
        return world

    async def send(self, world: TwoProviders, path: str, logout_token: str) -> int:
        async with world.new_browser() as provider:
            return (await provider.post(path, data={"logout_token": logout_token})).status_code

    @pytest.mark.parametrize("path", ["/auth/backchannel-logout", "/auth/backchannel-logout/other"])
    async def test_the_provider_of_a_token_is_found(self, world: TwoProviders, path: str) -> None:
        assert await self.send(world, path, world.other.logout_token()) == 200
        assert await world.subject() is None

    @pytest.mark.attack("45")
    async def test_the_same_sid_of_the_other_provider_ends_nothing(self, world: TwoProviders) -> None:
        assert await self.send(world, "/auth/backchannel-logout", world.op.logout_token()) == 200
        assert await world.subject() == "alice"

    @pytest.mark.attack("44")
    @pytest.mark.parametrize(
        ("path", "status"),
        [("/auth/backchannel-logout/other", 400), ("/auth/backchannel-logout/default", 404), ("/auth/backchannel-logout/x", 404)],
    )
    async def test_a_token_at_the_url_of_another_provider_is_refused(self, world: TwoProviders, path: str, status: int) -> None:
        assert await self.send(world, path, world.op.logout_token()) == status
        assert await world.subject() == "alice"

    @pytest.mark.attack("44")
    async def test_a_token_of_the_other_with_a_forged_issuer_is_refused(self, world: TwoProviders) -> None:
        world.op.kid = "forged"
        world.op.key = OTHER_RSA_KEY
        assert await self.send(world, "/auth/backchannel-logout", world.op.logout_token(iss=OTHER)) == 400
        assert await world.subject() == "alice"

    @pytest.mark.parametrize("issuer", ["https://evil.example", 1, None])
    async def test_a_token_without_a_known_issuer_is_refused(self, world: TwoProviders, issuer: object) -> None:
        assert await self.send(world, "/auth/backchannel-logout", world.other.logout_token(iss=issuer)) == 400
        assert world.op.count("/jwks") == 0

    @pytest.mark.parametrize("path", ["/auth/frontchannel-logout", "/auth/frontchannel-logout/other"])
    async def test_a_frame_ends_the_session(self, world: TwoProviders, path: str) -> None:
        other = await world.browser.get(path, params={"iss": ISSUER, "sid": "op-session-1"})
        assert other.status_code == (200 if path.endswith("logout") else 400)
        assert await world.subject() == "alice"
        response = await world.browser.get(path, params={"iss": OTHER, "sid": "op-session-1"})
        assert response.headers["content-security-policy"] == f"default-src 'none'; frame-ancestors {OTHER}"
        assert await world.subject() is None

    async def test_a_get_is_refused(self, world: TwoProviders) -> None:
        response = await world.browser.get("/auth/backchannel-logout/other")
        assert (response.status_code, response.headers["cache-control"]) == (405, "no-store")


async def test_a_session_of_a_removed_provider_stays_logged_in_without_tokens(world: TwoProviders) -> None:
    await world.come_back(world.other.authorize(await world.start_at("/auth/login/other")))
    later = World(sharing=world, handlers=[token])
    later.browser.cookies = world.browser.cookies
    world.clock.advance(seconds=301)
    assert await later.subject() == "alice"
    assert (await later.browser.get("/token")).status_code == 401
    response = await later.browser.post("/auth/logout", headers=SAME_ORIGIN)
    assert (response.status_code, response.headers["location"]) == (303, "/")
    assert later.op.count("/token") == 0


@pytest.mark.attack("9")
async def test_a_provider_that_takes_over_anothers_id_gets_no_tokens(world: TwoProviders) -> None:
    world.op.refreshable = True
    await world.come_back(world.op.authorize(await world.start_at("/auth/login", provider="default")))
    replaced = World(sharing=world, provider={"issuer": OTHER}, handlers=[token, userinfo])
    replaced.browser.cookies = world.browser.cookies
    calls = len(world.op.calls)
    assert (await replaced.browser.get("/userinfo")).status_code == 401
    world.clock.advance(seconds=301)
    assert (await replaced.browser.get("/token")).status_code == 401
    assert len(world.op.calls) == calls
    assert await replaced.subject() == "alice"


async def test_a_provider_with_a_new_id_is_still_called(world: TwoProviders) -> None:
    world.other.refreshable = True
    await world.come_back(world.other.authorize(await world.start_at("/auth/login/other")))
    renamed = World(sharing=world, beside=lambda _: [(other_provider(id="renamed"), world.other)], handlers=[token])
    renamed.browser.cookies = world.browser.cookies
    world.clock.advance(seconds=301)
    assert (await renamed.browser.get("/token")).text == "at-2"


async def test_an_outage_of_one_provider_does_not_affect_the_others_users(world: TwoProviders) -> None:
    def down(_: Any) -> Any:
        raise OSError

    world.other.replies = {"/.well-known/openid-configuration": down}
    assert (await world.browser.get("/auth/login/other", headers=GET_PAGE)).status_code == 503
    await world.come_back(world.op.authorize(await world.start_at("/auth/login", provider="default")))
    assert await world.subject() == "alice"


async def test_without_an_unnamed_provider_every_route_has_an_id() -> None:
    plugin = OidcPlugin(
        OidcConfig(
            providers=[other_provider(), plain_provider()],
            public_url="http://127.0.0.1:8000",
            sealing=SealingKeys([b"k" * 32]),
        )
    )
    app = Litestar(plugins=[SessionPlugin(make_config(public_url="http://127.0.0.1:8000")), plugin])
    paths = set(app.openapi_schema.to_schema()["paths"])
    assert "/auth/callback" not in paths
    assert {"/auth/login/{provider_id}", "/auth/callback/{provider_id}", "/auth/backchannel-logout"} <= paths
    assert {party.provider.id for party in plugin.relying_parties} == {"other", "git"}


@pytest.mark.parametrize(
    "providers",
    [
        [],
        [other_provider(), other_provider(issuer="https://third.example")],
        [other_provider(), other_provider(id="third")],
        [other_provider(), plain_provider(issuer=OTHER)],
    ],
)
def test_contradictory_configurations_are_refused(providers: list[Any]) -> None:
    with pytest.raises(ConfigurationError):
        OidcConfig(providers=providers, public_url="https://app.example.org", sealing=SealingKeys([b"k" * 32]))


async def test_a_plain_oauth2_provider_works_beside_an_oidc_provider() -> None:
    plain = PlainOp()
    world = World(beside=lambda _: [(plain_provider(title="Git <b>"), plain)])
    page = await world.browser.get("/auth/login", headers=GET_PAGE)
    assert '<a href="/auth/login/git">Git &lt;b&gt;</a>' in page.text
    response = await world.browser.get("/auth/login/git", headers=GET_PAGE)
    assert (await world.come_back(plain.authorize(response.headers["location"]))).status_code == 303
    assert await world.subject() == "583231"
    assert (await world.send_logout(world.op.logout_token(iss="https://git.example/login/oauth"))).status_code == 400
