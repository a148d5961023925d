"""Sessions and a login with OpenID Connect in FastAPI: `uvicorn --factory examples.fastapi_login:create_app`.

Set OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET as your provider gave them, and register there
`http://localhost:8000/auth/callback` as redirect URI and `http://localhost:8000/` as post-logout redirect URI. With more than one
process set SESSION_STORE, SESSION_SECRETS and SESSION_ENCRYPTION_KEYS, too.
"""

import os
import secrets
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from fastapi import Depends, FastAPI, WebSocket
from starlette.websockets import WebSocketDisconnect

from session_core import Identity, SessionConfig, SessionHandle
from session_core.cookies import parse_secrets
from session_core.oidc import DataChange, OidcConfig, OidcProvider
from session_core.sealing import SealingKeys, parse_keys
from session_core.starlette import (
    SessionMiddleware,
    StarletteSessions,
    get_session,
    requires,
    requires_login,
    requires_recent_login,
)
from session_core.starlette.oidc import OidcRoutes


class AppSession(msgspec.Struct):
    name: str = "stranger"
    visits: int = 0
    roles: list[str] = []


Session = Annotated[SessionHandle[AppSession], Depends(get_session)]


async def remember_user(identity: Identity, claims: Mapping[str, Any], session: SessionHandle[AppSession]) -> DataChange:
    """Copy what the new session needs from the claims. Create or update your user here; raise to refuse the login."""

    def change(data: AppSession) -> None:
        data.name = str(claims.get("name", identity.subject))[:100]
        data.roles = [str(role) for role in claims.get("roles", [])][:20]

    return change


def count(data: AppSession) -> None:
    """Add one; runs again on the newest data if another request wrote first."""
    data.visits += 1


def create_app() -> FastAPI:
    """Return the application."""
    public_url = os.environ.get("PUBLIC_URL", "http://localhost:8000")
    keys = os.environ.get("SESSION_ENCRYPTION_KEYS")
    sessions = StarletteSessions(
        SessionConfig(
            AppSession,
            store=os.environ.get("SESSION_STORE", "memory://"),
            secrets=parse_secrets(os.environ.get("SESSION_SECRETS", secrets.token_urlsafe(32))),
            public_url=public_url,
        )
    )
    provider = OidcProvider(
        issuer=os.environ["OIDC_ISSUER"],
        client_id=os.environ["OIDC_CLIENT_ID"],
        client_secret=os.environ["OIDC_CLIENT_SECRET"],
        allow_http=True,  # on loopback, for development
    )
    login = OidcConfig(
        providers=[provider],
        public_url=public_url,
        sealing=SealingKeys(parse_keys(keys) if keys else [secrets.token_bytes(32)]),
        on_login=remember_user,
    )

    app = FastAPI()
    app.add_middleware(SessionMiddleware, sessions=sessions)
    app.mount("/auth", OidcRoutes(sessions, login))

    @app.get("/public")
    async def public() -> str:
        return "no session is loaded here"

    @app.post("/visit")
    async def visit(session: Session) -> int:
        return (await session.update(count)).visits

    @app.get("/account", dependencies=[Depends(requires_login)])
    async def account(session: Session) -> dict[str, str]:
        return {"name": session.data.name, "subject": session.identity.subject if session.identity else ""}

    @app.get("/admin", dependencies=[Depends(requires(AppSession, lambda session: "admin" in session.data.roles))])
    async def admin() -> str:
        return "only for administrators"

    @app.post("/password", dependencies=[Depends(requires_recent_login(minutes=5))])
    async def password() -> str:
        return "only after a recent login"

    @app.websocket("/echo", dependencies=[Depends(requires_login)])
    async def echo(socket: WebSocket, session: Session) -> None:
        await socket.accept()
        try:
            async for text in socket.iter_text():
                await socket.send_text(f"{session.data.name}: {text}")
        except WebSocketDisconnect:  # the client has disconnected, or the session has ended
            return

    return app
