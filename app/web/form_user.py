"""Refuses a form of a page that was made for another login: the session has ended since, or another user has logged in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from litestar import Request

from session_core import session_of
from session_core.errors import SessionCoreError, SessionGoneError

if TYPE_CHECKING:
    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler

__all__ = ("SEEN", "OtherUserError", "refuse_form_of_other_user")

SEEN: Final = "seen_"
"""The names of hidden fields that say what the page showed begin with it."""
_FIELD: Final = f"{SEEN}user"


class OtherUserError(SessionCoreError):
    """The page of a form was made for one user, and another one is logged in now."""

    code = "other_user"
    status_code = 409
    title = "Another user is logged in now"


async def refuse_form_of_other_user(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Compare the user of the page with the user of the request; a guard of all pages, before their own guards.

    Without it a form that is open while its session ends would begin an anonymous session, and report what it sent as saved.
    Raises `SessionGoneError` or `OtherUserError`; the error page shows what was sent.
    """
    del handler
    if connection.scope.get("method") != "POST" or not isinstance(connection, Request):
        return
    shown_to = (await connection.form()).get(_FIELD)
    if not shown_to:  # a page for visitors, or a client without pages
        return
    identity = (await session_of(connection)).identity
    if identity is None:
        raise SessionGoneError
    if identity.user_key != shown_to:
        raise OtherUserError
