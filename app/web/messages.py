"""What a page says after an act, once: the cookie holds a code, the words are here. Nothing of it comes from an address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from litestar.datastructures import Cookie

from session_core.cookies import cookie_name
from session_core.litestar.problem import wants_page

if TYPE_CHECKING:
    from litestar import Litestar, Request
    from litestar.types import Message, Scope

__all__ = ("MESSAGES", "Messages", "announce_logout")

MESSAGES: Final = {
    "counted": "Your visit is counted.",
    "saved": "Your changes are saved.",
    "theme-light": "The light theme is on.",
    "theme-dark": "The dark theme is on.",
    "new-id": "Your session has a new id. The old id is no longer valid.",
    "logged-out": "You are logged out.",
    "device-signed-out": "The device is signed out.",
    "devices-signed-out": "{count} devices are signed out.",
    "no-device-signed-out": "There was no other device to sign out.",
    "acting-ended": "You are logged in as yourself again.",
    "session-ended": "The session has ended.",
    "user-signed-out": "The user is signed out everywhere.",
    "user-disabled": "The account is disabled, and signed out everywhere.",
    "user-enabled": "The account is enabled. Its owner can log in again.",
}
_SECONDS: Final = 300
_SEE_OTHER: Final = frozenset({200, 303})


class Messages:
    """The message cookie of one application."""

    def __init__(self, public_url: str) -> None:
        self._name = cookie_name("message", public_url)
        self._secure = public_url.startswith("https:")

    def cookie(self, code: str, count: int | None = None) -> Cookie:
        """Return the cookie that has the next page say what `MESSAGES` has for `code`."""
        return self._cookie(code if count is None else f"{code}.{count}", _SECONDS)

    def waiting(self, request: Request[Any, Any, Any]) -> bool:
        """Whether the browser has the cookie, which is then to be deleted: not by a HEAD, which shows nothing."""
        return self._name in request.cookies and request.method != "HEAD"

    def read(self, request: Request[Any, Any, Any]) -> str | None:
        """Return what the page is to say; None without a cookie, and for one that is not ours."""
        code, _, count = request.cookies.get(self._name, "").partition(".")
        text = MESSAGES.get(code)
        if text is None or ("{count}" in text) is not (count.isascii() and count.isdecimal() and len(count) < len("1000000")):
            return None
        return text.format(count=count)

    def deletion(self) -> Cookie:
        """Return the cookie that deletes the message: it is shown once."""
        return self._cookie("", 0)

    def _cookie(self, value: str, seconds: int) -> Cookie:
        return Cookie(self._name, value=value, max_age=seconds, path="/", secure=self._secure, httponly=True, samesite="lax")


async def announce_logout(message: Message, scope: Scope) -> None:
    """Have the page after a logout say so, wherever the provider leads the browser in between; a `before_send` hook."""
    if message["type"] != "http.response.start" or scope.get("path_template") != "/auth/logout":
        return
    app: Litestar = scope["litestar_app"]
    request: Request[Any, Any, Any] = app.request_class(scope)
    if message["status"] in _SEE_OTHER and wants_page(request):
        cookie = app.state["services"].messages.cookie("logged-out")
        message["headers"] = [*message.get("headers", ()), cookie.to_encoded_header()]
