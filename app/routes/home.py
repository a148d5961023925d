"""The public page and its forms: plain posts that work without a script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, get_type_hints

import msgspec
from litestar import Request, get, post
from litestar.params import URLEncodedBody
from litestar.response import Redirect, Response

from app.services import Injected
from app.session_data import AppSession, Language, Note, Theme
from app.web.public_address import see_other
from app.web.wording import LANGUAGES, greeting
from session_core import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("handlers",)

_PAGES: Final = frozenset({"/", "/account", "/account/sessions", "/admin"})


class ThemeForm(msgspec.Struct):
    """The form of the theme button."""

    theme: Theme
    back: str = "/"


class PreferencesForm(msgspec.Struct):
    """The form "Change it"."""

    language: Language
    note: Note


@get("/", include_in_schema=False)
async def home(request: Request[Any, Any, Any], session: Session[AppSession], services: Injected) -> Response[str]:
    """Show the session. For a visitor without a cookie nothing is loaded and nothing is stored."""
    words, language = greeting(session.data.language)
    return services.pages.render(
        request,
        "home.html",
        session=session,
        user=await services.user_of(session),
        fields=list(_fields(session.data)),
        events=await services.audit.of_session(session),
        idle_ms=services.settings.session_idle_seconds * 1000,
        languages=LANGUAGES,
        greeting=words,
        greeting_language=language,
        embedded=services.settings.uses_embedded_op,
        demo_pages=request.app.state.get("demo_pages", ()),  # demo:line
    )


@post("/session/visits", include_in_schema=False)
async def count_visit(request: Request[Any, Any, Any], session: Session[AppSession]) -> Redirect:
    """Increment the counter atomically, so that concurrent tabs lose no click."""

    def bump(data: AppSession) -> None:
        data.visits += 1

    first = not session.exists
    await session.update(bump)
    return see_other(request, "/", first=first)


@post("/session/theme", include_in_schema=False)
async def choose_theme(
    request: Request[Any, Any, Any], data: URLEncodedBody[ThemeForm], session: Session[AppSession]
) -> Redirect:
    """Store the theme, which then overrides the browser's preference."""
    first = not session.exists
    await session.update(theme=data.theme, theme_chosen=True)
    return see_other(request, data.back if data.back in _PAGES else "/", first=first)


@post("/session/preferences", include_in_schema=False)
async def save_preferences(
    request: Request[Any, Any, Any], data: URLEncodedBody[PreferencesForm], session: Session[AppSession]
) -> Redirect:
    """Save language and note by plain assignment: checked, merged and stored before this response starts."""
    session.data.language = data.language
    session.data.note = data.note
    return see_other(request, "/", first=not session.exists and session.changed)


@post("/session/regenerate", include_in_schema=False)
async def regenerate(request: Request[Any, Any, Any], session: Session[AppSession]) -> Redirect:
    """Give the session a new id."""
    await session.regenerate()
    return see_other(request, "/")


def _fields(data: AppSession) -> Iterator[tuple[str, str, str]]:
    """Name, declared type and value of each field, as one would write them."""
    for name, hint in get_type_hints(AppSession).items():
        plain = str(hint) if getattr(hint, "__args__", None) else hint.__name__
        yield name, plain.replace("typing.", "").replace("'", '"'), repr(getattr(data, name)).replace("'", '"')


handlers = [home, count_visit, choose_theme, save_preferences, regenerate]
