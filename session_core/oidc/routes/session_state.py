"""The route by which a single-page application reads who is logged in, and for how long, without extending the session."""

from __future__ import annotations

from typing import Any, Final

from session_core.asgi.answers import problem
from session_core.asgi.middleware import SCOPE_KEY
from session_core.asgi.web import JSON, PROBLEM, Response, WebRequest
from session_core.errors import LoginRequiredError
from session_core.oidc.relying_parties import RelyingParties
from session_core.oidc.routes.route import Route

__all__ = ("session_routes",)

_UNAUTHORIZED: Final = 401


def session_routes() -> list[Route]:
    """Return the routes."""
    summary = "Who is logged in, and for how long"
    answers = {200: (JSON,)}
    return [Route("GET", "/session", session_state, summary, session=True, safe=True, answers=answers, errors=(401, 503))]


async def session_state(request: WebRequest, relying_parties: RelyingParties, provider_id: str | None) -> Response:
    """Return the user and the remaining seconds, or 401 as a problem, never a redirect. Does not count as use of the session.

    A user whom guards would refuse (`SessionConfig.is_active`, `load_user`) counts as logged out.
    """
    del provider_id
    request.scope[SCOPE_KEY].extends = False
    session = await request.session()
    identity, expires_at, ends_at = session.identity, session.idle_expires_at, session.absolute_expires_at
    left = 0 if expires_at is None else expires_at - relying_parties.sessions.clock.now()
    if identity is None or ends_at is None or left <= 0 or not await request.lets_act(identity):
        headers = {"www-authenticate": "Bearer"} if request.bearer else None
        return Response(problem(LoginRequiredError()), status_code=_UNAUTHORIZED, media_type=PROBLEM, headers=headers)
    state: dict[str, Any] = {
        "authenticated": True,
        "expires_in": left // 1000,
        "absolute_expires_in": (ends_at - relying_parties.sessions.clock.now()) // 1000,
        "issuer": identity.issuer,
        "subject": identity.subject,
    }
    if (actor := session.actor) is not None:  # an administrator acts as this user
        state["actor"] = {"issuer": actor.issuer, "subject": actor.subject}
    return Response(state, media_type=JSON)
