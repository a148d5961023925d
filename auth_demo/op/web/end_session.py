"""The end-session endpoint: ends the provider session, notifies every client, then redirects the user back."""

from typing import Any, Final
from urllib.parse import urlencode

from litestar import Response, get, post
from litestar.response import Redirect

from auth_demo.op.protocol.logout_request import LogoutRequest, read_logout_request
from auth_demo.op.provider import EmbeddedOp
from auth_demo.op.settings import origin_of
from auth_demo.op.state.records import OpSession
from auth_demo.op.state.sessions import SESSION_COOKIE
from auth_demo.op.web.csrf import BROWSER_COOKIE
from auth_demo.op.web.login import from_own_page, refused_form
from auth_demo.op.web.pages import render
from auth_demo.op.web.parameters import MAX_BODY_BYTES, Parameters, parse_parameters
from auth_demo.op.web.web import (
    OpRequest,
    expired_cookie,
    new_cookie,
    op_of,
    query_parameters,
    read_form,
    session_of,
)

__all__ = ("confirm_end_session", "end_session", "end_session_by_post")

_LOGOUT_FORM: Final = "logout"


@get("/end_session")
async def end_session(request: OpRequest) -> Response[Any]:
    """Serve a logout request sent by redirect (OIDC RP-Initiated Logout 1.0, 2)."""
    return await _serve(request, query_parameters(request))


@post("/end_session", status_code=200)
async def end_session_by_post(request: OpRequest) -> Response[Any]:
    """Serve a logout request sent by form; when cross-site it has no cookies, and the hint names the session."""
    return await _serve(request, await read_form(request))


@post("/end_session/confirm", status_code=200)
async def confirm_end_session(request: OpRequest) -> Response[Any]:
    """End the session after the user's confirmation on our page."""
    form = (await read_form(request, limit=MAX_BODY_BYTES)).require_single()
    if not from_own_page(request, form, _LOGOUT_FORM):
        return refused_form(request, "This form is not valid any more", "Go back to the application and sign out again.")
    wanted = read_logout_request(op_of(request), parse_parameters((form.get("logout") or "").encode()))
    session = session_of(request)
    return await _finish(request, wanted, [session] if session else [])


async def _serve(request: OpRequest, parameters: Parameters) -> Response[Any]:
    op, wanted, session = op_of(request), read_logout_request(op_of(request), parameters), session_of(request)
    hinted = op.sessions.find_sid(wanted.hinted_sid) if wanted.hinted_sid else None
    if session is not None and (wanted.hinted_sub is None or wanted.hinted_sub != session.sub):
        # Without a hint for this user any page could sign users out (section 6).
        return _ask(request, op, wanted, parameters, session)
    if wanted.hinted_sid and hinted is None:
        # The session expired here, but tokens issued from it may still live.
        op.grants.revoke_session(wanted.hinted_sid)
    ending = {item.sid: item for item in (session, hinted) if item is not None}
    return await _finish(request, wanted, list(ending.values()))


def _ask(request: OpRequest, op: EmbeddedOp, wanted: LogoutRequest, parameters: Parameters, session: OpSession) -> Response[Any]:
    browser_id = op.forms.browser_id(request.cookies.get(BROWSER_COOKIE))
    response = render(
        "end_session.html",
        form_targets=[origin_of(wanted.return_to)] if wanted.return_to else [],
        account=op.oauth.query_account(session.sub),
        client=wanted.client,
        csrf=op.forms.issue(browser_id, _LOGOUT_FORM),
        logout=urlencode(parameters.values),
    )
    response.set_cookie(new_cookie(request, BROWSER_COOKIE, browser_id))
    return response


async def _finish(request: OpRequest, wanted: LogoutRequest, sessions: list[OpSession]) -> Response[Any]:
    op = op_of(request)
    frames = [frame for session in sessions for frame in _front_channel_frames(op, session)]
    # Ended first: this browser is signed out even if the notifications fail.
    await op.sign_out(sessions)
    if frames or wanted.return_to is None:
        response: Response[Any] = render(
            "signed_out.html",
            frames=[origin_of(frame) for frame in frames],
            frame_uris=frames,
            return_to=wanted.return_to,
            client=wanted.client,
        )
    else:
        response = Redirect(wanted.return_to, status_code=303)
    response.set_cookie(expired_cookie(request, SESSION_COOKIE))
    return response


def _front_channel_frames(op: EmbeddedOp, session: OpSession) -> list[str]:
    """Return the logout addresses with iss and sid of the session's clients (Front-Channel Logout 1.0, 2)."""
    query = urlencode({"iss": op.settings.issuer, "sid": session.sid})
    return [
        f"{client.frontchannel_logout_uri}{'&' if '?' in client.frontchannel_logout_uri else '?'}{query}"
        for client in op.clients
        if client.client_id in session.client_ids and client.frontchannel_logout_uri
    ]
