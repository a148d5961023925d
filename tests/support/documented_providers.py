"""Scripted providers that follow the documentation of real ones where these differ.

Each row describes one provider as documented: its URLs, the client authentication, the required and refused parameters of an
authorization request, the claims of its tokens and of userinfo. The settings in `docs/how-to/providers.md` are tested against it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx2

from session_core.testing import FakeClock
from tests.session_core.oidc.fake_op import GONE, RSA_KEY, FakeOp, b64, public_jwk

__all__ = ("DOCUMENTED", "Documented", "DocumentedOp")


@dataclass(frozen=True, kw_only=True)
class Documented:
    """The documented behaviour of one provider."""

    issuer: str
    """As in its metadata."""
    metadata: str
    authorization: str
    token: str
    jwks: str
    client_id: str
    client_auth: str
    """`basic`, `post`, `key` or `apple`: the only accepted method."""
    userinfo: str | None = None
    end_session: str | None = None
    revocation: str | None = None
    names_itself: bool = False
    """Whether it sends `iss` with its responses (RFC 9207) and says so."""
    asked: dict[str, str] = field(default_factory=dict)
    """Required parameters of an authorization request."""
    refuses: frozenset[str] = frozenset()
    """Refused parameters."""
    claims: dict[str, Any] = field(default_factory=dict)
    userinfo_claims: dict[str, Any] = field(default_factory=dict)
    key: dict[str, Any] = field(default_factory=dict)
    """Additional members of its keys."""
    logout: frozenset[str] = frozenset({"client_id", "post_logout_redirect_uri", "id_token_hint"})
    """Required parameters of a logout."""
    logout_token: dict[str, Any] | None = None
    """The header of its logout tokens; None without back-channel logout."""
    roles: str = "roles"
    """The path of the claim with the roles."""

    def hosts(self) -> set[str]:
        urls = (self.metadata, self.authorization, self.token, self.jwks, self.userinfo, self.end_session, self.revocation)
        return {urlsplit(url).hostname or "" for url in urls if url is not None}


class DocumentedOp(FakeOp):
    """A provider of one row."""

    def __init__(self, clock: FakeClock, documented: Documented, client_secret: str) -> None:
        super().__init__(clock, documented.issuer)
        self.documented, self.client_secret = documented, client_secret
        self.client_auth = self._authenticated
        self.revoked = 0
        self.jwks = [public_jwk(RSA_KEY, "k1", alg="RS256", use="sig", **documented.key)]
        unsaid = {} if "nonce" not in documented.refuses else {"nonce": GONE}
        self.claims = {"aud": documented.client_id, **documented.claims, **unsaid}
        self.userinfo = documented.userinfo_claims
        self.response_params = {} if documented.names_itself else {"iss": None}
        self.routes = {documented.token: "/token", documented.jwks: "/jwks"}
        if documented.userinfo is not None:
            self.routes[documented.userinfo] = "/userinfo"

    def configuration(self) -> dict[str, Any]:
        documented = self.documented
        known = {
            "issuer": documented.issuer,
            "authorization_endpoint": documented.authorization,
            "token_endpoint": documented.token,
            "jwks_uri": documented.jwks,
            "userinfo_endpoint": documented.userinfo,
            "end_session_endpoint": documented.end_session,
            "revocation_endpoint": documented.revocation,
            "id_token_signing_alg_values_supported": ["RS256"],
            "authorization_response_iss_parameter_supported": documented.names_itself or None,
        }
        return {name: value for name, value in known.items() if value is not None}

    async def reply(self, request: httpx2.Request) -> httpx2.Response:
        url = str(request.url).partition("?")[0]
        if url == self.documented.metadata:
            self.calls.append(request)
            return httpx2.Response(200, json=self.configuration())
        if url == self.documented.revocation:
            self.revoked += 1
            return httpx2.Response(200)
        if url not in self.routes:
            return httpx2.Response(404)
        address = f"https://any.example{self.routes[url]}"
        return await super().reply(httpx2.Request(request.method, address, headers=request.headers, content=request.content))

    def respond(self, url: str) -> tuple[str, dict[str, str]]:
        documented = self.documented
        assert url.startswith(f"{documented.authorization}?"), url
        redirect_uri, params = super().respond(url)
        asked = self.codes[params["code"]]
        assert asked["client_id"] == documented.client_id
        assert {name: asked.get(name) for name in documented.asked} == documented.asked
        assert not documented.refuses & set(asked), documented.refuses & set(asked)
        if "nonce" in documented.refuses:
            asked["nonce"] = ""
        if "code_challenge" in documented.refuses:
            asked["code_challenge"] = b64(hashlib.sha256(b"").digest())
        return redirect_uri, params

    def form_of(self, request: httpx2.Request) -> dict[str, str]:
        given = super().form_of(request)
        if "code_challenge" in self.documented.refuses:
            assert "code_verifier" not in given
            given["code_verifier"] = ""
        return given

    def logout_token(self, header: dict[str, Any] | None = None, **changes: Any) -> str:
        return super().logout_token(
            {**(self.documented.logout_token or {}), **(header or {})}, aud=self.documented.client_id, **changes
        )

    def _authenticated(self, request: httpx2.Request, form: dict[str, str]) -> None:
        method, basic = self.documented.client_auth, request.headers.get("authorization", "")
        if method == "basic":
            decoded = base64.b64decode(basic.removeprefix("Basic ")).decode().split(":")
            assert [unquote(part) for part in decoded] == [self.documented.client_id, self.client_secret]
            assert "client_secret" not in form
            return
        assert not basic
        assert form["client_id"] == self.documented.client_id
        if method == "post":
            assert form["client_secret"] == self.client_secret
        elif method == "apple":
            claims = _claims(form["client_secret"])
            assert claims["aud"] == "https://appleid.apple.com"
            assert claims["sub"] == self.documented.client_id
            assert 0 < claims["exp"] - claims["iat"] <= 15_777_000
        else:
            claims = _claims(form["client_assertion"])
            assert (claims["iss"], claims["sub"]) == (self.documented.client_id, self.documented.client_id)
            assert claims["aud"] == self.documented.token


def _claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


_KEYCLOAK = "https://keycloak.example.org/realms/company"
_ENTRA = "https://login.microsoftonline.com"
_TENANT, _OTHER_TENANT = "00000000-0000-0000-0000-000000000000", "22222222-2222-2222-2222-222222222222"
_B2C = "https://company.b2clogin.com"
_COGNITO = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Example01"
_ZITADEL = "https://company-abc123.zitadel.cloud"
_AUTHENTIK = "https://auth.example.org/application/o"

DOCUMENTED = {
    "keycloak": Documented(
        issuer=_KEYCLOAK,
        metadata=f"{_KEYCLOAK}/.well-known/openid-configuration",
        authorization=f"{_KEYCLOAK}/protocol/openid-connect/auth",
        token=f"{_KEYCLOAK}/protocol/openid-connect/token",
        jwks=f"{_KEYCLOAK}/protocol/openid-connect/certs",
        userinfo=f"{_KEYCLOAK}/protocol/openid-connect/userinfo",
        end_session=f"{_KEYCLOAK}/protocol/openid-connect/logout",
        revocation=f"{_KEYCLOAK}/protocol/openid-connect/revoke",
        client_id="app",
        client_auth="basic",
        names_itself=True,
        claims={"azp": "app", "realm_access": {"roles": ["admin"]}, "acr": "1"},
        roles="realm_access.roles",
        logout_token={"typ": "logout+jwt"},
    ),
    "auth0": Documented(
        issuer="https://tenant.eu.auth0.com/",
        metadata="https://tenant.eu.auth0.com/.well-known/openid-configuration",
        authorization="https://tenant.eu.auth0.com/authorize",
        token="https://tenant.eu.auth0.com/oauth/token",
        jwks="https://tenant.eu.auth0.com/.well-known/jwks.json",
        userinfo="https://tenant.eu.auth0.com/userinfo",
        end_session="https://tenant.eu.auth0.com/oidc/logout",
        revocation="https://tenant.eu.auth0.com/oauth/revoke",
        client_id="app",
        client_auth="post",
        asked={"audience": "https://api.example.org"},
        claims={"https://app.example.org/roles": ["admin"], "org_id": "org_1"},
        roles="https://app.example.org/roles",
        logout_token={"typ": "logout+jwt"},
    ),
    "entra": Documented(
        issuer=f"{_ENTRA}/{_TENANT}/v2.0",
        metadata=f"{_ENTRA}/{_TENANT}/v2.0/.well-known/openid-configuration",
        authorization=f"{_ENTRA}/{_TENANT}/oauth2/v2.0/authorize",
        token=f"{_ENTRA}/{_TENANT}/oauth2/v2.0/token",
        jwks=f"{_ENTRA}/{_TENANT}/discovery/v2.0/keys",
        userinfo="https://graph.microsoft.com/oidc/userinfo",
        end_session=f"{_ENTRA}/{_TENANT}/oauth2/v2.0/logout",
        client_id="11111111-1111-1111-1111-111111111111",
        client_auth="post",
        key={"issuer": f"{_ENTRA}/{_TENANT}/v2.0"},
        claims={"ver": "2.0", "tid": _TENANT, "oid": "o", "roles": ["admin"]},
    ),
    "entra-tenants": Documented(
        issuer=f"{_ENTRA}/{{tenantid}}/v2.0",
        metadata=f"{_ENTRA}/organizations/v2.0/.well-known/openid-configuration",
        authorization=f"{_ENTRA}/organizations/oauth2/v2.0/authorize",
        token=f"{_ENTRA}/organizations/oauth2/v2.0/token",
        jwks=f"{_ENTRA}/organizations/discovery/v2.0/keys",
        userinfo="https://graph.microsoft.com/oidc/userinfo",
        end_session=f"{_ENTRA}/organizations/oauth2/v2.0/logout",
        client_id="11111111-1111-1111-1111-111111111111",
        client_auth="post",
        key={"issuer": f"{_ENTRA}/{{tenantid}}/v2.0"},
        claims={"iss": f"{_ENTRA}/{_OTHER_TENANT}/v2.0", "tid": _OTHER_TENANT, "roles": ["admin"]},
    ),
    "b2c": Documented(
        issuer=f"{_B2C}/44444444-4444-4444-4444-444444444444/v2.0/",
        metadata=f"{_B2C}/company.onmicrosoft.com/B2C_1_login/v2.0/.well-known/openid-configuration",
        authorization=f"{_B2C}/company.onmicrosoft.com/b2c_1_login/oauth2/v2.0/authorize",
        token=f"{_B2C}/company.onmicrosoft.com/b2c_1_login/oauth2/v2.0/token",
        jwks=f"{_B2C}/company.onmicrosoft.com/b2c_1_login/discovery/v2.0/keys",
        end_session=f"{_B2C}/company.onmicrosoft.com/b2c_1_login/oauth2/v2.0/logout",
        client_id="55555555-5555-5555-5555-555555555555",
        client_auth="post",
        claims={"tfp": "B2C_1_login", "emails": ["ada@example.org"], "roles": ["admin"]},
    ),
    "cognito": Documented(
        issuer=_COGNITO,
        metadata=f"{_COGNITO}/.well-known/openid-configuration",
        authorization="https://company.auth.eu-central-1.amazoncognito.com/oauth2/authorize",
        token="https://company.auth.eu-central-1.amazoncognito.com/oauth2/token",
        jwks=f"{_COGNITO}/.well-known/jwks.json",
        userinfo="https://company.auth.eu-central-1.amazoncognito.com/oauth2/userInfo",
        end_session="https://company.auth.eu-central-1.amazoncognito.com/logout",
        revocation="https://company.auth.eu-central-1.amazoncognito.com/oauth2/revoke",
        client_id="1example23456789",
        client_auth="basic",
        claims={"token_use": "id", "cognito:groups": ["admin"], "cognito:username": "ada"},
        userinfo_claims={"email_verified": "true", "username": "ada"},
        logout=frozenset({"client_id", "logout_uri"}),
        roles="cognito:groups",
    ),
    "apple": Documented(
        issuer="https://appleid.apple.com",
        metadata="https://appleid.apple.com/.well-known/openid-configuration",
        authorization="https://appleid.apple.com/auth/authorize",
        token="https://appleid.apple.com/auth/token",
        jwks="https://appleid.apple.com/auth/keys",
        revocation="https://appleid.apple.com/auth/revoke",
        client_id="org.example.app.web",
        client_auth="apple",
        asked={"response_mode": "form_post", "scope": "openid name email"},
        claims={"nonce_supported": True, "email_verified": "true", "roles": ["admin"], "sid": GONE},
    ),
    "linkedin": Documented(
        issuer="https://www.linkedin.com/oauth",
        metadata="https://www.linkedin.com/oauth/.well-known/openid-configuration",
        authorization="https://www.linkedin.com/oauth/v2/authorization",
        token="https://www.linkedin.com/oauth/v2/accessToken",
        jwks="https://www.linkedin.com/oauth/openid/jwks",
        userinfo="https://api.linkedin.com/v2/userinfo",
        client_id="77example",
        client_auth="post",
        refuses=frozenset({"code_challenge", "code_challenge_method", "nonce"}),
        claims={"locale": "en_US", "roles": ["admin"], "sid": GONE},
        userinfo_claims={"locale": {"country": "US", "language": "en"}, "email_verified": "true"},
    ),
    "google": Documented(
        issuer="https://accounts.google.com",
        metadata="https://accounts.google.com/.well-known/openid-configuration",
        authorization="https://accounts.google.com/o/oauth2/v2/auth",
        token="https://oauth2.googleapis.com/token",
        jwks="https://www.googleapis.com/oauth2/v3/certs",
        userinfo="https://openidconnect.googleapis.com/v1/userinfo",
        revocation="https://oauth2.googleapis.com/revoke",
        client_id="0123456789-app.apps.googleusercontent.com",
        client_auth="basic",
        asked={"access_type": "offline", "prompt": "consent"},
        claims={"azp": "0123456789-app.apps.googleusercontent.com", "hd": "example.org", "roles": ["admin"], "sid": GONE},
    ),
    "okta": Documented(
        issuer="https://company.okta.com",
        metadata="https://company.okta.com/.well-known/openid-configuration",
        authorization="https://company.okta.com/oauth2/v1/authorize",
        token="https://company.okta.com/oauth2/v1/token",
        jwks="https://company.okta.com/oauth2/v1/keys",
        userinfo="https://company.okta.com/oauth2/v1/userinfo",
        end_session="https://company.okta.com/oauth2/v1/logout",
        revocation="https://company.okta.com/oauth2/v1/revoke",
        client_id="0oa0123456789",
        client_auth="key",
        claims={"ver": 1, "idp": "00o1", "amr": ["pwd"], "groups": ["admin"]},
        roles="groups",
    ),
    "zitadel": Documented(
        issuer=_ZITADEL,
        metadata=f"{_ZITADEL}/.well-known/openid-configuration",
        authorization=f"{_ZITADEL}/oauth/v2/authorize",
        token=f"{_ZITADEL}/oauth/v2/token",
        jwks=f"{_ZITADEL}/oauth/v2/keys",
        userinfo=f"{_ZITADEL}/oidc/v1/userinfo",
        end_session=f"{_ZITADEL}/oidc/v1/end_session",
        revocation=f"{_ZITADEL}/oauth/v2/revoke",
        client_id="0123456789",
        client_auth="basic",
        claims={"aud": ["0123456789", "9876543210"], "azp": "0123456789"},
        userinfo_claims={"urn:zitadel:iam:org:project:roles": {"admin": {"2131": "example.org"}}},
        roles="urn:zitadel:iam:org:project:roles",
        logout_token={"typ": "logout+jwt"},
    ),
    "authentik": Documented(
        issuer=f"{_AUTHENTIK}/app/",
        metadata=f"{_AUTHENTIK}/app/.well-known/openid-configuration",
        authorization=f"{_AUTHENTIK}/authorize/",
        token=f"{_AUTHENTIK}/token/",
        jwks=f"{_AUTHENTIK}/app/jwks/",
        userinfo=f"{_AUTHENTIK}/userinfo/",
        end_session=f"{_AUTHENTIK}/app/end-session/",
        revocation=f"{_AUTHENTIK}/revoke/",
        client_id="generated",
        client_auth="basic",
        claims={"acr": "goauthentik.io/providers/oauth2/default", "amr": ["pwd"]},
        userinfo_claims={"groups": ["admin"]},
        roles="groups",
        logout_token={"typ": "logout+jwt"},
    ),
}
