"""Two ways to log in: `uv run granian --interface asgi --factory examples.two_providers:create_app`.

An OpenID provider and GitHub, which is plain OAuth 2.0. Set OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET as the provider
gave them and register `http://localhost:8000/auth/callback` there; set GITHUB_CLIENT_ID and GITHUB_CLIENT_SECRET and register
`http://localhost:8000/auth/callback/github` there. `/auth/login` asks which one.
"""

import os
import secrets
from collections.abc import Mapping
from typing import Any

import httpx2
import msgspec
from litestar import Litestar, MediaType, get

from session_core import Identity, Session, SessionConfig, SessionHandle, SessionPlugin
from session_core.errors import LoginRefusedError
from session_core.guards import requires_login
from session_core.oidc import DataChange, FetchJson, OAuth2Provider, OidcConfig, OidcPlugin, OidcProvider
from session_core.sealing import SealingKeys

PUBLIC_URL = "http://localhost:8000"
API = "https://api.github.com"


class AppSession(msgspec.Struct):
    name: str = "stranger"
    email: str = ""


async def github_claims(user: Mapping[str, Any], fetch: FetchJson) -> dict[str, Any]:
    """Return claims as an OpenID provider names them. The profile has no verified address: that is at another one."""
    emails = await fetch(f"{API}/user/emails")
    verified = [each["email"] for each in emails if each["primary"] and each["verified"]]
    return {"name": user.get("name") or user["login"], "email": verified[0] if verified else "", "email_verified": bool(verified)}


async def enter(identity: Identity, claims: Mapping[str, Any], session: SessionHandle[AppSession]) -> DataChange:
    """Let in users with a verified address. Another user may have the same address at another provider."""
    if claims.get("email_verified") is not True:
        reason = "email_not_verified"
        raise LoginRefusedError(reason)

    def change(data: AppSession) -> None:
        data.name, data.email = str(claims.get("name", ""))[:100], str(claims["email"])[:254]

    return change


@get("/", media_type=MediaType.HTML)
async def home(session: Session[AppSession]) -> str:
    """Show the links to log in, or the button to log out."""
    if session.identity is None:
        return '<a href="/auth/login?provider=default&next=/me">Log in</a> <a href="/auth/login/github?next=/me">With GitHub</a>'
    return '<form method="post" action="/auth/logout"><button>Log out</button></form>'


@get("/me", guards=[requires_login])
async def me(session: Session[AppSession]) -> dict[str, str]:
    """Show who is logged in, and the provider."""
    return {"name": session.data.name, "email": session.data.email, "issuer": session.identity.issuer if session.identity else ""}


def create_app(transport: httpx2.AsyncBaseTransport | None = None) -> Litestar:
    """Return the application. `transport` replaces the network to the providers, for tests."""
    company = OidcProvider(
        issuer=os.environ["OIDC_ISSUER"],
        client_id=os.environ["OIDC_CLIENT_ID"],
        client_secret=os.environ["OIDC_CLIENT_SECRET"],
        title="Company account",
        allow_http=True,  # on loopback, for development
    )
    github = OAuth2Provider(
        id="github",
        title="GitHub",
        issuer="https://github.com/login/oauth",
        client_id=os.environ["GITHUB_CLIENT_ID"],
        client_secret=os.environ["GITHUB_CLIENT_SECRET"],
        token_endpoint_auth_method="client_secret_post",  # noqa: S106 - the name of a method
        authorization_endpoint="https://github.com/login/oauth/authorize",
        token_endpoint="https://github.com/login/oauth/access_token",  # noqa: S106 - an address
        userinfo_endpoint=f"{API}/user",
        scopes=("read:user", "user:email"),
        claims=github_claims,
    )
    login = OidcConfig(
        providers=[company, github],
        public_url=PUBLIC_URL,
        sealing=SealingKeys([secrets.token_bytes(32)]),  # for the life of this process; see docs/how-to/rotate-secrets.md
        on_login=enter,
        transport=transport,
    )
    sessions = SessionConfig(AppSession, public_url=PUBLIC_URL)
    return Litestar([home, me], plugins=[SessionPlugin(sessions), OidcPlugin(login)])
