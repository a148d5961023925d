"""The authorization endpoint: answers at once for a signed-in user, else shows the sign-in page."""

from typing import Any, Final
from urllib.parse import urlencode

from litestar import Response, get, post
from litestar.response import Redirect

from auth_demo.op.protocol.assurance import ACR_ONE_CLICK, acr_claim, needs_step_up
from auth_demo.op.protocol.authorization_request import (
    AuthorizationError,
    AuthorizationRequest,
    find_reply_address,
    read_authorization_request,
)
from auth_demo.op.provider import EmbeddedOp
from auth_demo.op.settings import origin_of
from auth_demo.op.state.records import AuthorizationCode, OpSession
from auth_demo.op.web.csrf import BROWSER_COOKIE
from auth_demo.op.web.pages import render, render_error
from auth_demo.op.web.parameters import Parameters
from auth_demo.op.web.responses import send_code, send_error
from auth_demo.op.web.web import OpRequest, new_cookie, op_of, query_parameters, read_form, session_of

__all__ = ("LOGIN_FORM", "authorize", "authorize_by_post", "grant_code", "read_or_reply", "show_sign_in")

LOGIN_FORM: Final = "login"


@get("/authorize")
async def authorize(request: OpRequest) -> Response[Any]:
    """Serve an authorization request (RFC 6749 4.1.1, OIDC Core 3.1.2.1)."""
    op, parameters = op_of(request), query_parameters(request)
    wanted = read_or_reply(op, parameters)
    if isinstance(wanted, Response):
        return wanted
    session = session_of(request)
    reason = _why_interact(op, wanted, session)
    if reason is None and session is not None:
        return grant_code(op, wanted, session)
    if "none" in wanted.prompts:
        error = AuthorizationError(reason or "login_required", "The user has to act, but prompt=none forbids it.")
        return send_error(wanted.reply_to, op.settings.issuer, error)
    return show_sign_in(request, wanted, parameters)


@post("/authorize")
async def authorize_by_post(request: OpRequest) -> Response[Any]:
    """Accept the request by POST (OIDC Core 3.1.2.1) and continue with GET.

    A cross-site POST arrives without our Lax cookies, so the user would look signed out; the GET has them.
    """
    parameters = (await read_form(request)).require_single()
    return Redirect(f"/authorize?{urlencode(parameters.values)}", status_code=303)


def read_or_reply(op: EmbeddedOp, parameters: Parameters) -> AuthorizationRequest | Response[Any]:
    """Return the valid request, or the answer to a bad one: at the client if its address is right, else here."""
    reply_to = find_reply_address(op.oauth, parameters)
    if reply_to is None:
        return render_error(
            400,
            "This sign-in link is not valid",
            "The application is unknown here, or its return address is not exactly the registered one.",
        )
    try:
        return read_authorization_request(op.oauth, parameters, reply_to)
    except AuthorizationError as error:
        return send_error(reply_to, op.settings.issuer, error)


def grant_code(op: EmbeddedOp, wanted: AuthorizationRequest, session: OpSession) -> Response[Any]:
    """Issue a code for the signed-in user and send it; consent is implied in the demo."""
    grant = op.grants.open_grant(
        session,
        client_id=wanted.reply_to.client.client_id,
        scope=wanted.scope,
        acr=acr_claim(session.acr, wanted.acr_values),
    )
    code = op.grants.issue_code(
        AuthorizationCode(
            grant=grant,
            redirect_uri=wanted.reply_to.redirect_uri,
            code_challenge=wanted.code_challenge,
            nonce=wanted.nonce,
        )
    )
    return send_code(wanted.reply_to, op.settings.issuer, code)


def show_sign_in(
    request: OpRequest,
    wanted: AuthorizationRequest,
    parameters: Parameters,
    *,
    status: int = 200,
    problem: str | None = None,
    username: str | None = None,
) -> Response[Any]:
    """Show who may sign in; the page carries the whole request, so the provider keeps nothing meanwhile."""
    op, session = op_of(request), session_of(request)
    browser_id = op.forms.browser_id(request.cookies.get(BROWSER_COOKIE))
    password_only = not op.settings.demo_mode or _needs_password(wanted)
    hinted = next((account for account in op.accounts if account.sub == wanted.hinted_sub), None)
    response = render(
        "login.html",
        status=status,
        form_targets=[origin_of(wanted.reply_to.redirect_uri)],
        accounts=() if password_only else op.accounts,
        client=wanted.reply_to.client,
        client_origin=origin_of(wanted.reply_to.redirect_uri),
        scopes=wanted.scope.split(),
        current_sub=session.sub if session else None,
        username=username or (hinted.username if hinted else wanted.login_hint) or "",
        problem=problem,
        csrf=op.forms.issue(browser_id, LOGIN_FORM),
        authorization=urlencode(parameters.values),
    )
    response.set_cookie(new_cookie(request, BROWSER_COOKIE, browser_id))
    return response


def _needs_password(wanted: AuthorizationRequest) -> bool:
    """Whether one click is not enough for the requested level."""
    return needs_step_up(ACR_ONE_CLICK, wanted.acr_values)


def _why_interact(op: EmbeddedOp, wanted: AuthorizationRequest, session: OpSession | None) -> str | None:
    """Return the error code that prompt=none would get (OIDC Core 3.1.2.6), or ``None`` when no interaction is needed."""
    if session is None or "login" in wanted.prompts:
        return "login_required"
    if wanted.hinted_sub is not None and wanted.hinted_sub != session.sub:
        return "login_required"
    age = op.clock() - session.auth_time
    # max_age=0 means a new sign-in, also within the same second.
    if wanted.max_age is not None and (wanted.max_age == 0 or age > wanted.max_age):
        return "login_required"
    if needs_step_up(session.acr, wanted.acr_values):
        return "interaction_required"
    return "interaction_required" if wanted.prompts & {"select_account", "consent"} else None
