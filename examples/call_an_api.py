"""Calls an API on behalf of the user who is logged in.

    uv run litestar --app examples.call_an_api:app run

The provider is named by OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET, the API by API_URL.
"""

from __future__ import annotations

import os

import httpx2
import msgspec
from litestar import Litestar, get

from session_core import Session, SessionConfig, SessionPlugin
from session_core.guards import requires_login
from session_core.oidc import BatchRefresh, OidcConfig, OidcPlugin, OidcProvider, Tokens
from session_core.sealing import SealingKeys, generate_key, parse_keys

API_URL = os.environ.get("API_URL", "https://api.example.org")
PUBLIC_URL = "http://localhost:8000"


class AppSession(msgspec.Struct):
    theme: str = "light"


def create_app(to_provider: httpx2.AsyncBaseTransport | None = None, to_api: httpx2.AsyncBaseTransport | None = None) -> Litestar:
    """Return the application. The transports replace the network in tests."""
    # One for all requests: a new one would load the certificates each time.
    api = httpx2.AsyncClient(transport=to_api, base_url=API_URL, timeout=5)

    @get("/orders", guards=[requires_login])
    async def orders(session: Session[AppSession], tokens: Tokens) -> list[str]:
        answer = await api.get("/orders", auth=tokens.auth(session, API_URL))
        return msgspec.json.decode(answer.raise_for_status().content, type=list[str])

    provider = OidcProvider(
        issuer=os.environ.get("OIDC_ISSUER", "https://login.example.org"),
        client_id=os.environ.get("OIDC_CLIENT_ID", "app"),
        client_secret=os.environ.get("OIDC_CLIENT_SECRET", "change me"),
        allow_http=True,  # on loopback, for development
        scopes=("openid", "offline_access", "orders:read"),
    )
    login = OidcConfig(
        providers=[provider],
        public_url=PUBLIC_URL,
        sealing=SealingKeys(parse_keys(os.environ.get("SESSION_ENCRYPTION_KEYS") or generate_key())),
        batch_refresh=BatchRefresh(),
        transport=to_provider,
    )
    plugins = [SessionPlugin(SessionConfig(AppSession, public_url=PUBLIC_URL)), OidcPlugin(login)]
    return Litestar([orders], plugins=plugins, on_shutdown=[api.aclose])


app = create_app()
