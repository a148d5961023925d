"""Renders the application's pages from the given arguments."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar.enums import MediaType
from litestar.response import Response

from app import NAME
from app.web.public_address import COOKIE_CHECK
from app.web.wording import actor, address, device, duration, iso, methods, origin, place, stamp, story, who
from session_core import Clock, SessionHandle, loaded_session_of
from session_core.events import current_session
from session_core.litestar.problem import return_to

if TYPE_CHECKING:
    from litestar import Request

    from app.data.users import User
    from app.session_data import AppSession
    from app.web.messages import Messages
    from session_core.oidc import ProviderChoice
    from session_core.urls import BaseUrl

__all__ = ("STATIC", "Pages", "asset_version")

_HERE: Final = Path(__file__).parent.parent
STATIC: Final = _HERE / "static"
_JUST_NOW_MS: Final = 5000


class Pages:
    """The templates of one application."""

    def __init__(self, clock: Clock, base: BaseUrl, messages: Messages) -> None:
        self._clock = clock
        self._base = base
        self._messages = messages
        environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        environment.globals |= {"static": _address, "brand": NAME}
        environment.filters |= {
            "ago": self._ago,
            "remaining": self._remaining,
            "share": self._share,
            "address": address,
            "device": device,
            "host": lambda url: url.partition("://")[2] or url,
            "iso": iso,
            "methods": methods,
            "site": lambda url: urlsplit(url).netloc,
            "origin": origin,
            "place": place,
            "stamp": stamp,
            "actor": actor,
            "story": story,
            "who": who,
        }
        self._environment = environment

    def render(
        self,
        request: Request[Any, Any, Any],
        name: str,
        *,
        session: SessionHandle[AppSession] | None = None,
        user: User | None = None,
        status: int = 200,
        **values: object,
    ) -> Response[str]:
        """Return a page. Without a known session it has no theme and no login button."""
        navigation = [("/", "Home")]
        if user is not None and not user.disabled:
            navigation += [("/account", "Account"), ("/account/sessions", "Devices")]
            navigation += [("/admin", "Admin")] if user.is_administrator else []
        loaded = session or loaded_session_of(request)  # an error page is bare, and says so all the same
        base = self._base.at(request.scope)
        path = base.local(request.scope["path"])
        # After a form the page that it was on. The address of a callback holds a code, which must not go on.
        here = base.of("/") if path.startswith("/auth/") else return_to(request, base)
        fetched = request.method in {"GET", "HEAD"}
        html = self._environment.get_template(name).render(
            bare=session is None,
            theme=session.data.theme if session is not None and session.data.theme_chosen else None,
            session=session,
            user=user,
            acting=loaded if loaded is not None and loaded.actor is not None else None,
            navigation=navigation,
            section=max((address for address, _ in navigation if f"{path}/".startswith(f"{address.rstrip('/')}/")), key=len),
            path=path if fetched else base.local(here.partition("?")[0]),
            here=here,
            message=self._messages.read(request),
            base=base.path,
            fetched=fetched,
            seen_user=session.identity.user_key if session is not None and session.identity is not None else "",
            unsent=request.query_params.get("unsent") == "1",
            cookie_lost=request.query_params.get(COOKIE_CHECK) == "1" and session is not None and not session.exists,
            public_url=self._base.url,
            **values,
        )
        response = Response(html, status_code=status, media_type=MediaType.HTML)
        if self._messages.waiting(request):
            response.cookies.append(self._messages.deletion())
            response.headers["cache-control"] = "private, no-store"
        return response

    def confirm(
        self,
        request: Request[Any, Any, Any],
        session: SessionHandle[AppSession],
        user: User,
        *,
        question: str,
        consequence: str,
        action: str,
        button: str,
        back: str,
    ) -> Response[str]:
        """Return the page that asks before something that cannot be undone: its form posts to `action`, its link leads `back`."""
        return self.render(
            request,
            "confirm.html",
            session=session,
            user=user,
            question=question,
            consequence=consequence,
            action=action,
            button=button,
            back=back,
        )

    def choice(self, choices: Sequence[ProviderChoice]) -> str:
        """Return the page on which users choose a provider."""
        reference = current_session.get()
        session = None if reference is None else reference()
        return self._environment.get_template("choice.html").render(
            bare=True,
            theme=None,
            session=None,
            user=None,
            acting=session if session is not None and session.actor is not None else None,
            navigation=[("/", "Home")],
            path="/auth/login",
            section="/",
            here=self._base.of("/"),
            message=None,
            base=self._base.path,
            cookie_lost=False,
            fetched=True,
            unsent=False,
            choices=choices,
        )

    def _ago(self, milliseconds: int) -> str:
        passed = self._clock.now() - milliseconds
        return "just now" if passed < _JUST_NOW_MS else f"{duration(passed)} ago"

    def _remaining(self, milliseconds: int) -> str:
        return duration(milliseconds - self._clock.now())

    def _share(self, until: int, since: int) -> int:
        """Percent of the time from `since` to `until` that is left."""
        return max(0, min(100, round(100 * (until - self._clock.now()) / max(1, until - since))))


@cache
def asset_version(name: str) -> str:
    """Return a digest of a packaged file."""
    return sha256((STATIC / name).read_bytes()).hexdigest()[:12]


def _address(name: str) -> str:
    # With the version in the address browsers cache the file without expiry, and still get the next version at once.
    return f"/static/{name}?v={asset_version(name)}"
