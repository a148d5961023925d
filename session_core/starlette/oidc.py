"""A login with OpenID Connect as an ASGI application: `app.mount("/auth", OidcRoutes(sessions, OidcConfig(...)))`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from session_core.asgi.web import PROBLEM, Response
from session_core.asgi_types import Receive, Scope, Send
from session_core.errors import SessionCoreError
from session_core.oidc.config import OidcConfig
from session_core.oidc.refresh.access_tokens import AccessTokens
from session_core.oidc.relying_parties import RelyingParties, check_sessions
from session_core.oidc.routes.all_routes import oidc_routes
from session_core.oidc.routes.auth_headers import with_auth_headers
from session_core.oidc.routes.route import NoSuchProviderError, Route
from session_core.starlette.middleware import StarletteSessions, sessions_of
from session_core.stores.deadlines import open_request_time

__all__ = ("OidcRoutes",)

_MOUNT: Final = "/auth"


class OidcRoutes:
    """Login, callback, logout, and the provider's back-channel and front-channel logout, to be mounted at `/auth`.

    Raises `ConfigurationError` without matching sessions. `tokens` are the access tokens of sessions.
    """

    def __init__(self, sessions: StarletteSessions[Any], config: OidcConfig) -> None:
        check_sessions("OidcRoutes", config, sessions.application)
        self.relying_parties = RelyingParties(config, sessions.sessions)
        self.tokens = AccessTokens(self.relying_parties)
        self._routes: dict[tuple[str, str, bool], Route] = {
            (route.method, route.path, route.by_provider): route for route in oidc_routes(self.relying_parties)
        }
        for route in self._routes.values():
            if not route.session and route.method == "POST":
                names = [party.provider.id for party in self.relying_parties] if route.by_provider else [""]
                sessions.cross_site |= {f"{_MOUNT}{route.path}/{name}".rstrip("/") for name in names}
        sessions.on_stop += [self.relying_parties.close, self.tokens.close]  # called in reverse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. WebSockets are closed."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 4404})
            return
        scope, path = _below_mount(scope)
        sessions = sessions_of(scope)
        open_request_time()  # a logout of the provider's takes several store calls, and no session
        send = with_auth_headers(scope, send)
        try:
            response = await self._answer(sessions, path, scope, receive)
        except SessionCoreError as error:
            await sessions.answer_error(scope, receive, send, error)
        else:
            await response(scope, receive, send)

    async def _answer(self, sessions: StarletteSessions[Any], path: str, scope: Scope, receive: Receive) -> Response:
        head, _, name = path.strip("/").partition("/")
        route = self._routes.get((scope["method"], f"/{head}", bool(name)))
        if route is None:
            allowed = [known for known in ("GET", "HEAD", "POST") if (known, f"/{head}", bool(name)) in self._routes]
            return _problem(405, {"allow": ", ".join(allowed)}) if allowed else _problem(404)
        try:
            request = sessions.application.web_request(scope, receive)
            return await route.endpoint(request, self.relying_parties, name or None)
        except NoSuchProviderError:
            return _problem(404)


def _below_mount(scope: Scope) -> tuple[Scope, str]:
    """Return the scope as it was outside of the mount, and the path below it.

    Starlette adds the mount to `root_path` and leaves `path` as it was; others take it off the path.
    """
    root, path = scope.get("root_path", ""), scope["path"]
    outer = root.removesuffix(_MOUNT)
    whole = path if path.startswith(f"{outer}{_MOUNT}") else f"{outer}{_MOUNT}{path}"
    return {**scope, "root_path": outer, "path": whole}, whole.removeprefix(f"{outer}{_MOUNT}")


def _problem(status: int, headers: dict[str, str] | None = None) -> Response:
    details = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    return Response(details, status_code=status, media_type=PROBLEM, headers=headers)
