"""Serves the application below the path of PUBLIC_URL, and redirects browsers to its host name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from litestar.enums import ScopeType
from litestar.response import Redirect

from session_core import SessionPlugin
from session_core.litestar.problem import is_browser_navigation, wants_page
from session_core.urls import base_url_of

if TYPE_CHECKING:
    from litestar import Request
    from litestar.types import ASGIApp, Receive, Scope, Send

    from app.settings.settings import Settings

__all__ = ("COOKIE_CHECK", "PublicAddress", "see_other")

COOKIE_CHECK: Final = "cookies"
"""The query parameter of the page after a form that has set the first cookie."""
_NO_PAGES: Final = ("/health/", "/metrics", "/api/", "/static/", "/schema", "/auth/")
"""Addresses for programs, which are never redirected. The login redirects browsers itself."""


class PublicAddress:
    """Removes the path of PUBLIC_URL, unless a proxy has done so, and redirects pages opened at another host name."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._base = base_url_of(settings.public_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or redirect."""
        if scope["type"] in {ScopeType.HTTP, ScopeType.WEBSOCKET}:
            path = self._base.local(scope["path"])
            if path != scope["path"] and not scope.get("root_path"):
                scope["root_path"] = self._base.path
            if scope["type"] == ScopeType.HTTP and not path.startswith(_NO_PAGES):
                address = self._base.elsewhere(scope)
                if address is not None:
                    headers = [(b"location", address.encode("ascii")), (b"cache-control", b"no-store"), (b"content-length", b"0")]
                    await send({"type": "http.response.start", "status": 307, "headers": headers})
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    return
        await self._app(scope, receive, send)


def see_other(
    request: Request[Any, Any, Any], path: str, *, say: str = "", count: int | None = None, first: bool = False
) -> Redirect:
    """Return the redirect after a form, to a page of the application, which shows the message `say` of `MESSAGES`.

    `first`: the form has begun the session. Then the page reports if the browser has not kept the cookie.
    """
    if first and is_browser_navigation(request):
        path += f"{'&' if '?' in path else '?'}{COOKIE_CHECK}=1"
    base = request.app.plugins.get(SessionPlugin).config.base.at(request.scope)
    messages = request.app.state["services"].messages
    cookies = [messages.cookie(say, count)] if say and wants_page(request) else []
    return Redirect(base.of(path), status_code=303, cookies=cookies)
