"""A login with OpenID Connect: `uv run granian --interface asgi --factory examples.oidc_login:create_app`.

Set OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET as your provider gave them, and register there
`http://localhost:8000/auth/callback` as redirect URI and `http://localhost:8000/` as post-logout redirect URI. The plugin brings
/auth/login, /auth/callback, /auth/logout and the logouts that the provider starts.
"""

import os
import secrets
from collections.abc import Mapping
from typing import Any

import httpx2
import msgspec
from litestar import Litestar, MediaType, get

from session_core import Identity, Session, SessionConfig, SessionHandle, SessionPlugin
from session_core.guards import requires_login
from session_core.oidc import DataChange, OidcConfig, OidcPlugin, OidcProvider
from session_core.sealing import SealingKeys

PUBLIC_URL = "http://localhost:8000"


class AppSession(msgspec.Struct):
    name: str = "stranger"


async def remember_name(identity: Identity, claims: Mapping[str, Any], session: SessionHandle[AppSession]) -> DataChange:
    """Copy what the new session needs from the claims. Create or update your user here; raise to refuse the login."""
    name = str(claims.get("name", identity.subject))[:100]

    def change(data: AppSession) -> None:
        data.name = name

    return change


@get("/", media_type=MediaType.HTML)
async def home(session: Session[AppSession]) -> str:
    """Show a link or a button. A logout is a POST, because another site could make the browser load a link."""
    if session.identity is None:
        return '<a href="/auth/login?next=/profile">Log in</a>'
    return '<form method="post" action="/auth/logout"><button>Log out</button></form>'


@get("/profile", guards=[requires_login])
async def profile(session: Session[AppSession]) -> dict[str, str]:
    """Show who is logged in."""
    return {"name": session.data.name, "subject": session.identity.subject if session.identity else ""}


def create_app(transport: httpx2.AsyncBaseTransport | None = None) -> Litestar:
    """Return the application. `transport` replaces the network to the provider, for tests."""
    provider = OidcProvider(
        issuer=os.environ["OIDC_ISSUER"],
        client_id=os.environ["OIDC_CLIENT_ID"],
        client_secret=os.environ["OIDC_CLIENT_SECRET"],
        allow_http=True,  # on loopback, for development
    )
    login = OidcConfig(
        providers=[provider],
        public_url=PUBLIC_URL,
        sealing=SealingKeys([secrets.token_bytes(32)]),  # for the life of this process; see docs/how-to/rotate-secrets.md
        on_login=remember_name,
        transport=transport,
    )
    sessions = SessionConfig(AppSession, public_url=PUBLIC_URL)
    return Litestar([home, profile], plugins=[SessionPlugin(sessions), OidcPlugin(login)])
