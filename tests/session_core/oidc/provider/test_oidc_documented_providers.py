"""The settings of `docs/how-to/providers.md`, each against a provider scripted from its documentation."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import httpx2
import pytest

from session_core import Identity, SessionHandle
from session_core.oidc import OAuth2Provider, OidcProvider, names_at
from tests.session_core.oidc.fake_op import GET_PAGE, World, b64
from tests.session_core.oidc.plain_op import PlainOp
from tests.support.documented_providers import DOCUMENTED, DocumentedOp
from tests.support.pages import ROOT, blocks

pytestmark = pytest.mark.anyio

PAGE = ROOT / "docs" / "how-to" / "providers.md"
PUBLIC_URL = "https://app.example.org"
POSTED = {
    "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "accept": "text/html",
    "origin": "https://appleid.apple.com", "content-type": "application/x-www-form-urlencoded",
}  # fmt: skip
USER = '{"name": {"firstName": "Ada", "lastName": "L"}, "email": "ada@example.org"}'


@cache
def recipes() -> dict[str, OidcProvider | OAuth2Provider]:
    """The providers of the page's last example, which contains all of them, by id."""
    found: dict[str, Any] = {}
    exec(blocks(PAGE)[-1].code, found)
    return {provider.id: provider for provider in found["config"].providers}


class DocumentedWorld(World):
    """The application with one recipe and its provider."""

    def __init__(self, name: str) -> None:
        self.recipe, self.seen = recipes()[name], list[Mapping[str, Any]]()
        secret = self.recipe.client_secret

        async def enter(identity: Identity, claims: Mapping[str, Any], session: SessionHandle[Any]) -> None:
            self.seen.append(claims)

        def beside(clock: Any) -> list[tuple[Any, Any]]:
            self.provider = DocumentedOp(clock, DOCUMENTED[name], secret if isinstance(secret, str) else "")
            return [(self.recipe, self.provider)]

        super().__init__(public_url=PUBLIC_URL, beside=beside, on_login=enter)
        self.ops |= dict.fromkeys(DOCUMENTED[name].hosts(), self.provider)

    async def enter(self, **params: str) -> httpx.Response:
        response = await self.browser.get(f"/auth/login/{self.recipe.id}", params=params, headers=GET_PAGE)
        assert response.status_code == 303, self.reasons()
        redirect_uri, given = self.provider.respond(response.headers["location"])
        assert redirect_uri == f"{PUBLIC_URL}/auth/callback/{self.recipe.id}"
        if self.recipe.response_mode == "query":
            return await self.come_back(f"{redirect_uri}?{urlencode(given)}")
        jar = self.browser.cookies
        sent = {name: jar[name] for name in jar if name.startswith("__Host-login-post-")}
        async with self.new_browser(cookies=sent) as cross_site:
            posted = await cross_site.post(
                urlsplit(redirect_uri).path, content=urlencode({**given, "user": USER}), headers=POSTED
            )
        jar.extract_cookies(posted)
        return await self.come_back(posted.headers["location"])


def test_every_recipe_is_tested_and_marked_on_the_page() -> None:
    assert set(recipes()) - {"node", "django", "idpyoidc", "github", "x"} == set(DOCUMENTED)
    text = PAGE.read_text()
    sections = re.split(r"(?m)^## ", text)[1:]
    kinds = {section.partition("\n")[0]: re.findall(r"\*\*(Scripted|Run by the tests)\b", section) for section in sections}
    del kinds["All of them"]
    assert all(len(kind) == 1 for kind in kinds.values()), kinds
    assert [name for name, kind in kinds.items() if kind != ["Scripted"]] == ["oidc-provider", "django-oauth-toolkit", "idpyoidc"]


@pytest.mark.parametrize("name", DOCUMENTED)
async def test_a_login_has_the_roles_of_the_configured_claim(name: str) -> None:
    world = DocumentedWorld(name)
    response = await world.enter()
    assert response.status_code == 303, world.reasons()
    assert await world.subject() == "alice"
    (claims,) = world.seen
    assert names_at(claims, world.provider.documented.roles) == ["admin"]
    if name == "apple":
        assert claims["user"]["name"] == {"firstName": "Ada", "lastName": "L"}


@pytest.mark.parametrize("name", DOCUMENTED)
async def test_a_logout_reaches_the_provider(name: str) -> None:
    world = DocumentedWorld(name)
    await world.enter()
    response = await world.browser.post("/auth/logout", headers={"sec-fetch-site": "same-origin"})
    location, documented = response.headers["location"], world.provider.documented
    assert await world.subject() is None
    if documented.end_session is None:
        assert location == "/"
    else:
        assert location.startswith(f"{documented.end_session}?")
        asked = parse_qs(urlsplit(location).query)
        assert documented.logout <= set(asked)
        assert ("post_logout_redirect_uri" in asked) == ("post_logout_redirect_uri" in documented.logout)
    assert world.provider.revoked == (documented.revocation is not None and name != "google")


@pytest.mark.parametrize("name", [name for name, row in DOCUMENTED.items() if row.logout_token is not None])
async def test_a_logout_by_the_provider_ends_the_session(name: str) -> None:
    world = DocumentedWorld(name)
    await world.enter()
    async with world.new_browser() as provider:
        path = f"/auth/backchannel-logout/{world.recipe.id}"
        assert (await provider.post(path, data={"logout_token": world.provider.logout_token()})).status_code == 200
    assert await world.subject() is None


@pytest.mark.parametrize(
    ("name", "parameter"),
    [("keycloak", "kc_idp_hint"), ("auth0", "organization"), ("auth0", "screen_hint"), ("cognito", "identity_provider")],
)
async def test_a_link_can_set_the_documented_parameters(name: str, parameter: str) -> None:
    world = DocumentedWorld(name)
    url = (await world.browser.get(f"/auth/login/{world.recipe.id}?{parameter}=some", headers=GET_PAGE)).headers["location"]
    assert parse_qs(urlsplit(url).query)[parameter] == ["some"]


class NamedOp(PlainOp):
    """Plain OAuth 2.0 as documented by GitHub and X: GitHub names itself, X requires Basic and nests the user in `data`."""

    def __init__(self, recipe: OAuth2Provider) -> None:
        super().__init__()
        self.recipe = recipe
        if recipe.response_issuer is not None:
            self.response_params = {"iss": recipe.response_issuer}
        if recipe.id == "x":
            self.user = {"data": {"id": "583231", "name": "Octo", "username": "octocat"}}

    def reply(self, request: Any) -> Any:
        url = str(request.url)
        if url == self.recipe.userinfo_endpoint:
            return httpx2.Response(200, json=self.user)
        assert url == self.recipe.token_endpoint, url
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        assert ("client_secret" in form) == (self.recipe.id == "github")
        assert request.headers.get("authorization", "").startswith("Basic ") == (self.recipe.id == "x")
        asked = self.codes.pop(form["code"])
        assert asked["code_challenge"] == b64(hashlib.sha256(form["code_verifier"].encode()).digest())
        return httpx2.Response(200, json=self.answer)


@pytest.mark.parametrize("name", ["github", "x"])
async def test_plain_oauth2_logs_in(name: str) -> None:
    recipe = recipes()[name]
    assert isinstance(recipe, OAuth2Provider)
    op = NamedOp(recipe)
    world = World(public_url=PUBLIC_URL, beside=lambda _: [(recipe, op)])
    world.ops |= {urlsplit(url).hostname or "": op for url in (recipe.token_endpoint, recipe.userinfo_endpoint)}
    response = await world.browser.get(f"/auth/login/{name}", headers=GET_PAGE)
    assert (await world.come_back(op.authorize(response.headers["location"]))).status_code == 303
    assert await world.subject() == "583231"
