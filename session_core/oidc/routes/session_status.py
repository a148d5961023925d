"""The address that reports who is logged in, for pages that poll it; never extends the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_core.asgi.answers import problem
from session_core.asgi.web import JSON, PROBLEM, Response
from session_core.errors import LoginRequiredError
from session_core.oidc.routes.route import Route

if TYPE_CHECKING:
    from session_core.asgi.web import WebRequest
    from session_core.oidc.relying_parties import RelyingParties

__all__ = ("status_routes",)


def status_routes() -> list[Route]:
    """Return the route."""
    return [Route("GET", "/session", session_status, summary="Report who is logged in", session=True, extends=False)]


async def session_status(request: WebRequest, relying_parties: RelyingParties, provider_id: str | None) -> Response:
    """Return `{"authenticated": true, "expires_in"}` with the seconds until the session ends unless it is used, else 401."""
    del provider_id
    session = await request.session(extends=False)
    ends_at = session.idle_expires_at
    if session.identity is None or ends_at is None:
        error = LoginRequiredError()
        return Response({**problem(error), "authenticated": False}, status_code=error.status_code, media_type=PROBLEM)
    left = max(0, (ends_at - relying_parties.clock.now()) // 1000)
    return Response({"authenticated": True, "expires_in": left}, media_type=JSON)
