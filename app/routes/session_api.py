"""The current session as JSON: read it, change fields, count, regenerate the id."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import get, patch, post
from litestar.params import JSONBody

from app.services import Injected
from app.session_data import AppSession, Language, Note, Theme
from session_core import Session

__all__ = ("handlers",)


class SessionView(AppSession, kw_only=True):
    """The typed data and the lifetimes. Times are Unix seconds as in `auth_time`, null for a visitor without a session."""

    authenticated: bool
    created_at: int | None
    idle_expires_at: int | None
    absolute_expires_at: int | None


class SessionPatch(msgspec.Struct, forbid_unknown_fields=True):
    """The fields that a client may set; those left out stay as they are."""

    theme: Theme | msgspec.UnsetType = msgspec.UNSET
    language: Language | msgspec.UnsetType = msgspec.UNSET
    note: Note | msgspec.UnsetType = msgspec.UNSET


class Visits(msgspec.Struct):
    """The counter after the increment."""

    visits: int


async def _view(session: Session[AppSession], services: Injected) -> SessionView:
    return SessionView(
        **msgspec.structs.asdict(session.data),
        authenticated=await services.user_of(session) is not None,
        created_at=_seconds(session.created_at),
        idle_expires_at=_seconds(session.idle_expires_at),
        absolute_expires_at=_seconds(session.absolute_expires_at),
    )


def _seconds(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else milliseconds // 1000


@get("/api/session", tags=["session"])
async def read_session(session: Session[AppSession], services: Injected) -> SessionView:
    """Return the session; defaults for a visitor without one."""
    return await _view(session, services)


@patch("/api/session", tags=["session"])
async def change_session(data: JSONBody[SessionPatch], session: Session[AppSession], services: Injected) -> SessionView:
    """Assign fields. Different fields merge with other requests' writes; the same field is a conflict (409)."""
    for name, value in _given(data).items():
        setattr(session.data, name, value)
    # Saved here and not with the response, so that the response shows the stored data.
    await session.save()
    return await _view(session, services)


@post("/api/session/visits", status_code=200, tags=["session"])
async def count_visit(session: Session[AppSession]) -> Visits:
    """Increment the counter atomically; begins a session for a visitor."""

    def bump(data: AppSession) -> None:
        data.visits += 1

    return Visits((await session.update(bump)).visits)


@post("/api/session/regenerate", status_code=204, tags=["session"])
async def regenerate(session: Session[AppSession]) -> None:
    """Give the session a new id; the old one is invalid at once."""
    await session.regenerate()


def _given(data: SessionPatch) -> dict[str, Any]:
    given = {name: getattr(data, name) for name in data.__struct_fields__}
    given = {name: value for name, value in given.items() if value is not msgspec.UNSET}
    return given | ({"theme_chosen": True} if "theme" in given else {})


handlers = [read_session, change_session, count_visit, regenerate]
