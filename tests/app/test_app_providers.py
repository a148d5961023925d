"""Any identity provider by settings, one or several, from variables or a file, up to a login over HTTP."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.asgi import create_app
from app.settings.declared import example_of
from app.settings.production import production_problems
from app.settings.provider import ProviderSettings
from app.settings.report import SettingsError
from app.settings.settings import Settings, load_settings
from session_core.oidc import OAuth2Provider, OidcPlugin, OidcProvider
from session_core.testing import FakeClock
from tests.security.site import Site, running_site
from tests.support.certificates import make_certificate
from tests.support.hostile_op.grants import CLIENT_ID, CLIENT_SECRET
from tests.support.hostile_op.misbehaviour import Misbehaviour
from tests.support.hostile_op.provider import HostileOp

GOOD = "Jc7Wm2xTq9Lf4RzKp8Vd1NsYb6Hg3Ea0UoIiXkQwMtB"
PARTNER = {
    "OIDC_1_ID": "partner",
    "OIDC_1_ISSUER": "https://partner.example",
    "OIDC_1_CLIENT_ID": "shop",
    "OIDC_1_CLIENT_SECRET": GOOD,
}
FILE = """
[[provider]]
id = "partner"
title = "Partner account"
issuer = "https://partner.example"
client_id = "shop"
client_secret = "Jc7Wm2xTq9Lf4RzKp8Vd1NsYb6Hg3Ea0UoIiXkQwMtB"
scopes = ["openid", "offline_access"]
roles_claim = "realm_access.roles"
authorization_params = { access_type = "offline" }
link_params = ["organization"]

[[provider]]
id = "github"
protocol = "oauth2"
issuer = "https://github.com/login/oauth"
client_id = "Iv1.0123"
client_secret = "Jc7Wm2xTq9Lf4RzKp8Vd1NsYb6Hg3Ea0UoIiXkQwMtB"
client_auth_method = "client_secret_post"
authorization_endpoint = "https://github.com/login/oauth/authorize"
token_endpoint = "https://github.com/login/oauth/access_token"
userinfo_endpoint = "https://api.github.com/user"
scopes = "read:user user:email"
"""


def loaded(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def refused(monkeypatch: pytest.MonkeyPatch, **environment: str) -> dict[str, str]:
    with pytest.raises(SettingsError) as caught:
        loaded(monkeypatch, **environment)
    assert GOOD not in str(caught.value)
    return {problem.name: str(problem) for problem in caught.value.problems}


def built(settings: Settings, number: int = 0) -> Any:
    return settings.providers[number].provider(allow_http=True)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    file = tmp_path / "client-key.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return file


class TestNumberedVariables:
    def test_numbered_variables_replace_the_embedded_provider(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = loaded(monkeypatch, **PARTNER)
        assert [each.oidc_id for each in settings.providers] == ["partner"]
        assert not settings.uses_embedded_op

    def test_numbered_variables_add_to_the_unnumbered_provider(self, monkeypatch: pytest.MonkeyPatch) -> None:
        own = {"OIDC_ISSUER": "https://login.example.org", "OIDC_CLIENT_ID": "shop", "OIDC_CLIENT_SECRET": GOOD}
        second = {name.replace("_1_", "_10_"): value for name, value in PARTNER.items()} | {"OIDC_10_ID": "later"}
        second["OIDC_10_ISSUER"] = "https://later.example"
        settings = loaded(monkeypatch, **own, **second, **PARTNER)
        assert [each.oidc_id for each in settings.providers] == ["default", "partner", "later"]

    def test_numbered_variables_are_read_from_the_env_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Path(".env").write_text("".join(f"{name}={value}\n" for name, value in PARTNER.items()))
        settings = loaded(monkeypatch, OIDC_1_TITLE="Partner", OIDC_1_CLIENT_ID="from-the-environment")
        (partner,) = settings.providers
        assert (partner.oidc_title, partner.oidc_client_id) == ("Partner", "from-the-environment")

    @pytest.mark.parametrize("name", ["ID", "ISSUER", "CLIENT_ID", "CLIENT_SECRET"])
    def test_numbered_variables_need_a_registration(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        given = {key: value for key, value in PARTNER.items() if key != f"OIDC_1_{name}"}
        problems = refused(monkeypatch, **given)
        assert list(problems) == [f"OIDC_1_{name}"]
        assert re.search(r"for example OIDC_1_|the secret that the provider issued", problems[f"OIDC_1_{name}"])

    @pytest.mark.parametrize(("name", "meant"), [("OIDC_1_ISUER", "OIDC_1_ISSUER"), ("OIDC_1_SECRET", "OIDC_1_CLIENT_SECRET")])
    def test_a_misspelt_variable_is_refused(self, monkeypatch: pytest.MonkeyPatch, name: str, meant: str) -> None:
        assert f"did you mean {meant}?" in refused(monkeypatch, **PARTNER, **{name: "x"})[name]

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("ISSUER", "partner.example", "http or https"),
            ("SCOPES", "profile", "must contain the scope openid"),
            ("ROLES_CLAIM", "realm_access..roles", "path of a claim"),
            ("SUBJECT_CLAIM", ".sub", "path of a claim"),
            ("CLIENT_AUTH_METHOD", "basic", "client_secret_basic"),
            ("AUTHORIZATION_PARAMS", "prompt", "name=value"),
            ("CLOCK_TOLERANCE_SECONDS", "900", "less than or equal to 300"),
            ("CLIENT_SECRET_FILE", "/no/such/file", "cannot be read"),
        ],
    )
    def test_an_invalid_value_of_a_provider_is_refused_by_name(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
    ) -> None:
        problems = refused(monkeypatch, **{**PARTNER, f"OIDC_1_{name}": value})
        assert list(problems) == [f"OIDC_1_{name}"]
        assert words in problems[f"OIDC_1_{name}"]
        assert f"for example OIDC_1_{name}=" in problems[f"OIDC_1_{name}"]

    def test_settings_without_the_provider_they_belong_to_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert list(refused(monkeypatch, **PARTNER, OIDC_ROLES_CLAIM="groups")) == ["OIDC_ROLES_CLAIM"]

    def test_errors_of_the_library_name_the_provider(self, monkeypatch: pytest.MonkeyPatch) -> None:
        problems = refused(monkeypatch, **PARTNER, OIDC_1_LINK_PARAMS="state")
        assert "names that a login decides nothing by" in problems["OIDC_1_LINK_PARAMS"]

    def test_production_checks_each_provider(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = loaded(
            monkeypatch, **{**PARTNER, "OIDC_1_CLIENT_SECRET": "change-me-please-now", "OIDC_1_ISSUER": "http://127.0.0.1:9"}
        )
        names = {problem.name for problem in production_problems(settings)}
        assert "OIDC_1_ISSUER" in names
        monkeypatch.setenv("OIDC_1_ISSUER", "https://partner.example")
        assert "OIDC_1_CLIENT_SECRET" in {problem.name for problem in production_problems(load_settings())}


class TestFile:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        file = tmp_path / "providers.toml"
        file.write_text(FILE)
        return file

    def test_a_file_holds_providers_of_both_kinds(self, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
        settings = loaded(monkeypatch, OIDC_PROVIDERS_FILE=str(file))
        partner, github = built(settings, 0), built(settings, 1)
        assert isinstance(partner, OidcProvider)
        assert isinstance(github, OAuth2Provider)
        assert (partner.scope, partner.authorization_params, partner.link_params) == (
            "openid offline_access", {"access_type": "offline"}, ("organization",),
        )  # fmt: skip
        assert (github.scope, github.token_endpoint_auth_method) == ("read:user user:email", "client_secret_post")
        assert GOOD not in repr(settings.providers) + repr(partner)

    @pytest.mark.parametrize(
        ("change", "name"),
        [
            (('issuer = "https://partner', 'isuer = "https://partner'), "providers.toml, provider 1: isuer"),
            (('id = "github"', 'title = "x"'), "providers.toml, provider 2: id"),
            (('scopes = "read', 'scopes = "a\\\\b read'), "providers.toml, provider 2: scopes"),
            (("token_endpoint", "#"), "providers.toml, provider 2: token_endpoint"),
            (('roles_claim = "realm_access.roles"', "roles_claim = 7"), "providers.toml, provider 1: roles_claim"),
            (("[[provider]]", "[[providers]]"), "OIDC_PROVIDERS_FILE"),
            (("[[provider]]", "[[provider"), "OIDC_PROVIDERS_FILE"),
        ],
    )
    def test_a_mistake_in_the_providers_file_is_named(
        self, monkeypatch: pytest.MonkeyPatch, file: Path, change: tuple[str, str], name: str
    ) -> None:
        file.write_text(FILE.replace(*change))
        assert name in refused(monkeypatch, OIDC_PROVIDERS_FILE=str(file))

    def test_a_missing_file_is_refused(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        assert list(refused(monkeypatch, OIDC_PROVIDERS_FILE=str(tmp_path / "none.toml"))) == ["OIDC_PROVIDERS_FILE"]


class TestTheOneProvider:
    """The same settings without a number."""

    BASE = {"OIDC_ISSUER": "https://login.example.org", "OIDC_CLIENT_ID": "shop"}  # noqa: RUF012 - not changed

    def test_a_secret_in_a_file_is_read_for_every_request(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        file = tmp_path / "secret"
        file.write_text(f"{GOOD}\n")
        provider = built(loaded(monkeypatch, **self.BASE, OIDC_CLIENT_SECRET_FILE=str(file)))
        assert provider.client_secret() == GOOD
        file.write_text("the next one\n")
        assert provider.client_secret() == "the next one"

    def test_a_key_file_is_accepted(self, monkeypatch: pytest.MonkeyPatch, key_file: Path) -> None:
        provider = built(loaded(monkeypatch, **self.BASE, OIDC_CLIENT_KEY_FILE=str(key_file), OIDC_CLIENT_KEY_ID="2026-11"))
        assert (provider.token_endpoint_auth_method, provider.client_key.kid) == ("private_key_jwt", "2026-11")

    def test_a_public_client_is_accepted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert built(loaded(monkeypatch, **self.BASE, OIDC_CLIENT_AUTH_METHOD="none")).client_secret is None

    def test_apple_is_accepted(self, monkeypatch: pytest.MonkeyPatch, key_file: Path) -> None:
        options = {"OIDC_APPLE_TEAM_ID": "ABCDE12345", "OIDC_CLIENT_KEY_FILE": str(key_file), "OIDC_CLIENT_KEY_ID": "KEY1",
                   "OIDC_RESPONSE_MODE": "form_post", "OIDC_POSTED_USER": "true"}  # fmt: skip
        provider = built(loaded(monkeypatch, **self.BASE, **options))
        assert provider.client_secret().count(".") == 2
        assert (provider.token_endpoint_auth_method, provider.posted_user) == ("client_secret_post", True)

    def test_metadata_can_be_set_by_hand(self, monkeypatch: pytest.MonkeyPatch) -> None:
        names = ("AUTHORIZATION_ENDPOINT", "TOKEN_ENDPOINT", "JWKS_URI", "USERINFO_ENDPOINT", "REVOCATION_ENDPOINT")
        endpoints = {f"OIDC_{name}": f"https://login.example.org/{name}" for name in names}
        metadata = built(loaded(monkeypatch, **self.BASE, OIDC_CLIENT_SECRET=GOOD, **endpoints)).given_metadata()
        assert {f"OIDC_{name}": getattr(metadata, name.lower()) for name in names} == endpoints

    def test_an_audience_and_parameters_can_be_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        options = {"OIDC_AUDIENCE": "https://api.example.org", "OIDC_AUTHORIZATION_PARAMS": "prompt=consent&a=%26"}
        provider = built(loaded(monkeypatch, **self.BASE, OIDC_CLIENT_SECRET=GOOD, **options))
        assert provider.authorization_params == {"audience": "https://api.example.org", "prompt": "consent", "a": "&"}


def test_every_provider_setting_has_a_valid_example() -> None:
    for name in ProviderSettings.model_fields:
        match = re.match(rf"for example {name.upper()}=(.+)", example_of(name, Settings.model_fields))
        if name == "oidc_client_secret":
            continue
        assert match, name
        ProviderSettings(**{name: match[1]})


PARAMETERS = {"audience": "https://api.example.org", "prompt": "consent"}
TEXTS = {
    "ID": ("partner", "id", "partner"),
    "TITLE": ("Partner", "title", "Partner"),
    "ISSUER": ("https://login.example.org/{tenantid}/v2.0", "issuer", "https://login.example.org/{tenantid}/v2.0"),
    "CLIENT_ID": ("shop", "client_id", "shop"),
    "CLIENT_SECRET": (GOOD, "client_secret", GOOD),
    "CLIENT_AUTH_METHOD": ("client_secret_post", "token_endpoint_auth_method", "client_secret_post"),
    "CLIENT_ASSERTION_AUDIENCE": ("token_endpoint", "client_assertion_audience", "token_endpoint"),
    "SCOPES": ("openid offline_access", "scope", "openid offline_access"),
    "AUDIENCE": ("https://api.example.org", "authorization_params", PARAMETERS),
    "AUTHORIZATION_PARAMS": (
        "prompt=consent",
        "authorization_params",
        {"audience": "https://api.example.org", "prompt": "consent"},
    ),
    "LINK_PARAMS": ("kc_idp_hint organization", "link_params", ("kc_idp_hint", "organization")),
    "RESPONSE_MODE": ("form_post", "response_mode", "form_post"),
    "PAR": ("required", "pushed_authorization_requests", "required"),
    "USERINFO": ("false", "use_userinfo", False),
    "SUBJECT_CLAIM": ("oid", "subject_claim", "oid"),
    "METADATA_URL": ("https://login.example.org/policy", "metadata_url", "https://login.example.org/policy"),
    "END_SESSION_ENDPOINT": ("https://login.example.org/logout", "end_session_endpoint", "https://login.example.org/logout"),
    "LOGOUT_PARAMS": ("federated=", "logout_params", {"federated": ""}),
    "LOGOUT_RETURN_PARAM": ("logout_uri", "logout_return_param", "logout_uri"),
    "TENANTS": ("00000000-0000-0000-0000-000000000000", "tenants", ("00000000-0000-0000-0000-000000000000",)),
    "MAX_AGE": ("3600", "max_age", 3600),
    "ACR_VALUES": ("phr phrh", "acr_values", ("phr", "phrh")),
    "LOGOUT_TOKEN_TYP": ("if_present", "logout_token_typ", "if_present"),
    "STEP_UP_PROMPT": ("true", "step_up_prompt", True),
    "REAUTHENTICATION_PROMPT": ("select_account", "reauthentication_prompt", "select_account"),
    "VERIFY_REAUTHENTICATION": ("false", "verify_reauthentication", False),
    "REVOKE_AT_LOGOUT": ("false", "revoke_at_logout", False),
    "POSTED_USER": ("true", "posted_user", True),
    "CLOCK_TOLERANCE_SECONDS": ("120", "clock_tolerance_seconds", 120),
    "ACCEPT_CODE_INJECTION_WITHOUT_PKCE": ("true", "accept_code_injection_without_pkce", True),
    "ACCEPT_ID_TOKEN_REPLAY_WITHOUT_NONCE": ("true", "accept_id_token_replay_without_nonce", True),
}
"""A value for each setting, and what the library's option of the other name is then."""
ELSEWHERE = {
    "PROTOCOL", "CLIENT_SECRET_FILE", "CLIENT_KEY_FILE", "CLIENT_KEY_ID", "APPLE_TEAM_ID", "AUTHORIZATION_ENDPOINT",
    "TOKEN_ENDPOINT", "JWKS_URI", "USERINFO_ENDPOINT", "REVOCATION_ENDPOINT", "ROLES_CLAIM", "ACCOUNT_URL",
}  # fmt: skip
"""Settings with a test of their own in this module or in `test_app_pages.py`."""


@pytest.mark.parametrize("source", ["variables", "numbered variables", "file"])
def test_every_setting_reaches_the_provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str) -> None:
    assert {name.removeprefix("oidc_").upper() for name in ProviderSettings.model_fields} == TEXTS.keys() | ELSEWHERE
    if source == "file":
        file = tmp_path / "providers.toml"
        file.write_text("[[provider]]\n" + "".join(f'{name.lower()} = "{text}"\n' for name, (text, _, _) in TEXTS.items()))
        given = {"OIDC_PROVIDERS_FILE": str(file)}
    else:
        place = "OIDC_" if source == "variables" else "OIDC_7_"
        given = {f"{place}{name}": text for name, (text, _, _) in TEXTS.items()}
    provider = built(loaded(monkeypatch, **given))
    assert {name: getattr(provider, option) for name, (_, option, _) in TEXTS.items()} == {
        name: expected for name, (_, _, expected) in TEXTS.items()
    }


def test_proxy_and_authority_reach_the_calls_to_the_provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority, _ = make_certificate(tmp_path)
    monkeypatch.setenv("OIDC_PROXY", "http://proxy.example.org:3128")
    monkeypatch.setenv("OIDC_CA_FILE", str(authority))
    config = create_app(loaded(monkeypatch)).plugins.get(OidcPlugin).config
    assert (config.proxy, config.ca_file) == ("http://proxy.example.org:3128", authority)


async def of_two_providers(clock: FakeClock, database: Path, stack: AsyncExitStack, **partner: Any) -> tuple[Site, HostileOp]:
    op, other = [await stack.enter_async_context(HostileOp(lambda: clock.now() / 1000)) for _ in range(2)]
    given = {
        "id": "partner",
        "title": "Partner & sons",
        "issuer": other.issuer,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
    }
    further = ProviderSettings(**{f"oidc_{name}": value for name, value in {**given, **partner}.items()})
    site = await stack.enter_async_context(running_site(database, clock, op=op, further=(further,)))
    return site, other


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


@pytest.mark.anyio
async def test_a_user_chooses_a_provider_and_gets_the_roles_of_that_provider(
    clock: FakeClock, database: Path, stack: AsyncExitStack
) -> None:
    site, other = await of_two_providers(clock, database, stack, roles_claim="realm_access.roles")
    browser = site.browser()
    tab = browser.tab(f"{site.url}/")
    page = await tab.follow("/auth/login?next=/account")
    assert page.status == 200
    assert "Partner &amp; sons" in page.text
    assert "<style" not in page.text
    (href,) = re.findall(r'href="(/auth/login/partner[^"]*)"', page.text)
    other.next_login(Misbehaviour(claims={"realm_access": {"roles": ["admin"]}, "roles": ["user"]}))
    assert (await tab.follow(href)).url == f"{site.url}/account"
    me = (await tab.fetch("/api/me")).json()
    assert (me["issuer"], me["roles"]) == (other.issuer, ["admin"])


@pytest.mark.anyio
@pytest.mark.parametrize("state", ["of the login", "unknown"])
async def test_try_again_after_a_failed_login_keeps_the_chosen_provider(
    state: str, clock: FakeClock, database: Path, stack: AsyncExitStack
) -> None:
    site, _ = await of_two_providers(clock, database, stack)
    browser = site.browser()
    back = await site.response_address(browser, path="/auth/login/partner?next=/account")
    if state == "unknown":
        back = re.sub(r"(?<=state=)[^&]+", "x" * 43, back)
    clock.advance(minutes=11)
    page = await site.come_back(browser, back)
    (again,) = re.findall(r'href="([^"]+)">Try again', page.text)
    known = "next=%2Faccount&amp;" if state == "of the login" else ""
    assert again == f"/auth/login?{known}provider=partner"


@pytest.mark.anyio
async def test_the_first_provider_keeps_the_plain_paths_and_its_own_claim(
    clock: FakeClock, database: Path, stack: AsyncExitStack
) -> None:
    site, _ = await of_two_providers(clock, database, stack, roles_claim="realm_access.roles")
    browser = site.browser()
    said = Misbehaviour(claims={"realm_access": {"roles": ["admin"]}, "roles": ["user"]})
    await site.login(browser, said, "/auth/login?provider=default")
    me = (await browser.tab(f"{site.url}/").fetch("/api/me")).json()
    assert (me["issuer"], me["roles"]) == (site.op.issuer, ["user"])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"login": "octocat"}, "octocat"),
        ({"username": "ada", "name": "Ada L"}, "Ada L"),
        ({"user": {"name": {"firstName": "Ada", "lastName": "L"}}}, "Ada L"),
        ({"user": {"name": ["x"]}}, "alice"),
        ({"user": "x"}, "alice"),
    ],
)
async def test_names_of_users_are_found_where_providers_put_them(
    clock: FakeClock, database: Path, claims: dict[str, Any], name: str
) -> None:
    async with running_site(database, clock, oidc_userinfo=False) as site:
        browser = site.browser()
        await site.login(browser, Misbehaviour(claims=claims))
        assert (await browser.tab(f"{site.url}/").fetch("/api/me")).json()["name"] == name
