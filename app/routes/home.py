"""The public page and its forms: plain posts that work without a script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, get_type_hints

import msgspec
from litestar import Request, get, post
from litestar.params import URLEncodedBody
from litestar.response import Redirect, Response

from app.services import Injected, Services
from app.session_data import AppSession, Language, Note, Theme
from app.web.public_address import see_other
from app.web.wording import LANGUAGES, greeting
from session_core import Session
from session_core.errors import SessionConflictError

__all__ = ("handlers",)

_PAGE: Final = re.compile(r"/(?!auth(/|$))([\w-]+(/[\w-]+)*)?", re.ASCII)
"""Where the theme button leads back to: a page here, also one that a clone has added, but no login and no logout."""


class ThemeForm(msgspec.Struct):
    """The form of the theme button."""

    theme: Theme
    back: str = "/"


class PreferencesForm(msgspec.Struct):
    """The form "Change it". `seen_language` and `seen_note` are what the page showed."""

    language: Language
    note: Note
    seen_language: Language | None = None
    seen_note: Note | None = None


@get("/", include_in_schema=False)
async def home(request: Request[Any, Any, Any], session: Session[AppSession], services: Injected) -> Response[str]:
    """Show the session. For a visitor without a cookie nothing is loaded and nothing is stored."""
    return await _home(request, session, services)


async def _home(
    request: Request[Any, Any, Any], session: Session[AppSession], services: Services, *, unsaved: PreferencesForm | None = None
) -> Response[str]:
    """Return the page. `unsaved` is a form that conflicts with another tab's change; it is shown beside the newest values."""
    words, language = greeting(session.data.language)
    return services.pages.render(
        request,
        "home.html",
        status=200 if unsaved is None else 409,
        session=session,
        user=await services.user_of(session),
        fields=list(_fields(session.data)),
        activity=await services.activity_of_session(session, entries=12),
        idle_ms=services.settings.session_idle_seconds * 1000,
        languages=LANGUAGES,
        greeting=words,
        greeting_language=language,
        embedded=services.settings.uses_embedded_op,
        demo_pages=request.app.state.get("demo_pages", ()),  # demo:line
        unsaved=unsaved,
    )


@post("/session/visits", include_in_schema=False)
async def count_visit(request: Request[Any, Any, Any], session: Session[AppSession]) -> Redirect:
    """Increment the counter atomically, so that concurrent tabs lose no click."""

    def bump(data: AppSession) -> None:
        data.visits += 1

    first = not session.exists
    await session.update(bump)
    return see_other(request, "/", say="counted", first=first)


@post("/session/theme", include_in_schema=False)
async def choose_theme(
    request: Request[Any, Any, Any], data: URLEncodedBody[ThemeForm], session: Session[AppSession]
) -> Redirect:
    """Store the theme, which then overrides the browser's preference."""
    first = not session.exists
    await session.update(theme=data.theme, theme_chosen=True)
    back = data.back if _PAGE.fullmatch(data.back) else "/"
    return see_other(request, back, say=f"theme-{data.theme}", first=first)


@post("/session/preferences", include_in_schema=False)
async def save_preferences(
    request: Request[Any, Any, Any], data: URLEncodedBody[PreferencesForm], session: Session[AppSession], services: Injected
) -> Response[Any]:
    """Save what the user has changed, unless another tab or request has changed it since the page was shown."""
    try:
        _assign(session.data, "language", data.language, data.seen_language)
        _assign(session.data, "note", data.note, data.seen_note)
        first = not session.exists and session.changed
        await session.save()
    except SessionConflictError:
        await session.reload()
        return await _home(request, session, services, unsaved=data)
    return see_other(request, "/", say="saved", first=first)


@post("/session/regenerate", include_in_schema=False)
async def regenerate(request: Request[Any, Any, Any], session: Session[AppSession]) -> Redirect:
    """Give the session a new id."""
    await session.regenerate()
    return see_other(request, "/", say="new-id")


def _assign(data: AppSession, name: str, value: str, seen: str | None) -> None:
    """Set a field that the user has changed. Raises `SessionConflictError` where it is not as the page showed it."""
    stored, value, seen = getattr(data, name), _unix(value), None if seen is None else _unix(seen)
    if seen is not None and value != seen != _unix(stored) != value:
        raise SessionConflictError(fields=(name,))
    if value != seen:
        setattr(data, name, value)


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n")  # as forms send the ends of lines


def _fields(data: AppSession) -> Iterator[tuple[str, str, str]]:
    """Name, declared type and value of each field, as one would write them."""
    for name, hint in get_type_hints(AppSession).items():
        plain = str(hint) if getattr(hint, "__args__", None) else hint.__name__
        yield name, plain.replace("typing.", "").replace("'", '"'), repr(getattr(data, name)).replace("'", '"')


handlers = [home, count_visit, choose_theme, save_preferences, regenerate]
