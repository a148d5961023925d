"""What the demo's own pages share: their templates, their files, and that no answer of theirs is kept."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Final, TypeAlias

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import Request
from litestar.enums import MediaType
from litestar.response import Response

from session_core import SessionHandle, session_of
from session_core.errors import SessionGoneError

__all__ = ("PageRequest", "PageResponse", "asset_response", "html_response", "session_of_form")

PageRequest: TypeAlias = Request[Any, Any, Any]
PageResponse: TypeAlias = Response[Any]

_NOT_KEPT: Final = {"cache-control": "no-store"}
_environment: Final = Environment(
    loader=PackageLoader("auth_demo", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def html_response(template: str, *, status: int = 200, **values: object) -> PageResponse:
    """Return a page, or a part of one."""
    html = _environment.get_template(template).render(**values)
    return Response(html, status_code=status, media_type=MediaType.HTML, headers=_NOT_KEPT)


async def session_of_form(request: PageRequest) -> SessionHandle[Any]:
    """Return the session. Raises `SessionGoneError` if the page of the form was shown to a user who is not logged in any more."""
    session, seen = await session_of(request), (await request.form()).get("seen_user")
    if seen and (session.identity is None or session.identity.user_key != seen):
        raise SessionGoneError
    return session


def asset_response(request: PageRequest) -> PageResponse:
    """Return the packaged file that the address names; only for routes that name files."""
    name = request.scope["path"].rpartition("/")[2]
    kind = "text/css; charset=utf-8" if name.endswith(".css") else "text/javascript"
    return Response(_asset(name), media_type=kind, headers=_NOT_KEPT)


@cache
def _asset(name: str) -> bytes:
    return (files("auth_demo") / "static" / name).read_bytes()
