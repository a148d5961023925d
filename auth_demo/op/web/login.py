"""The sign-in form's target: one click in the demo, or user name and password."""

import logging
from typing import Any

from litestar import Response, post

from auth_demo.op.protocol.assurance import ACR_ONE_CLICK, ACR_PASSWORD, needs_step_up
from auth_demo.op.protocol.authorization_request import AuthorizationError, AuthorizationRequest
from auth_demo.op.provider import EmbeddedOp
from auth_demo.op.settings import Account
from auth_demo.op.state.secret import digest, same
from auth_demo.op.state.sessions import SESSION_COOKIE
from auth_demo.op.web.authorize import LOGIN_FORM, grant_code, read_or_reply, show_sign_in
from auth_demo.op.web.csrf import BROWSER_COOKIE
from auth_demo.op.web.pages import render_error
from auth_demo.op.web.parameters import MAX_BODY_BYTES, Parameters, parse_parameters
from auth_demo.op.web.responses import send_error
from auth_demo.op.web.web import OpRequest, new_cookie, op_of, read_form, session_of

__all__ = ("from_own_page", "log_in", "refused_form")

_log = logging.getLogger(__name__)


@post("/login")
async def log_in(request: OpRequest) -> Response[Any]:
    """Sign the user in and answer the authorization request that the form carries."""
    op, form = op_of(request), (await read_form(request, limit=MAX_BODY_BYTES)).require_single()
    if not from_own_page(request, form, LOGIN_FORM):
        return refused_form(request, "This sign-in form is not valid any more", "Go back to the application and sign in again.")
    # The form could have been edited: its request is validated again.
    parameters = parse_parameters((form.get("authorization") or "").encode())
    wanted = read_or_reply(op, parameters)
    if isinstance(wanted, Response):
        return wanted
    if form.get("account") is not None:
        account = op.account(form.get("account") or "")
        if not op.settings.demo_mode or needs_step_up(ACR_ONE_CLICK, wanted.acr_values) or account is None:
            return show_sign_in(request, wanted, parameters, status=400, problem="Please enter a password.")
        return await _finish(request, wanted, account, acr=ACR_ONE_CLICK, amr=("user",))
    return await _log_in_by_password(request, wanted, parameters, form)


def from_own_page(request: OpRequest, form: Parameters, purpose: str) -> bool:
    """Tell whether a form was shown by this provider to this browser and sent by the page itself.

    `Sec-Fetch-Site: same-origin` says so. `none` does not: Firefox sends it, with ``Origin: null``, for some forms of other
    sites. There, and in browsers without that header, `Origin` has to be ours where it is sent. The token alone is not
    enough: over http a page on another port can plant the cookie that it is bound to.
    """
    headers, issuer = request.headers, op_of(request).settings.issuer
    origins = headers.getall("origin", [])
    match headers.getall("sec-fetch-site", []):
        case ["same-origin"]:
            own_page = origins in ([], ["null"], [issuer])
        case ["none"]:
            own_page = origins == [issuer]
        case []:
            own_page = origins in ([], [issuer])
        case _:
            own_page = False
    if not own_page:
        return False
    return op_of(request).forms.accept(request.cookies.get(BROWSER_COOKIE), purpose, form.get("csrf"))


def refused_form(request: OpRequest, title: str, advice: str) -> Response[Any]:
    """Refuse a form of another page, with a hint if the browser did not keep the form's cookie."""
    if request.cookies.get(BROWSER_COOKIE) is not None:
        return render_error(403, title, advice)
    detail = f"Your browser sent no cookie with this form. Allow cookies for {op_of(request).settings.issuer}. {advice}"
    return render_error(403, "Signing in and out needs cookies", detail)


async def _log_in_by_password(
    request: OpRequest, wanted: AuthorizationRequest, parameters: Parameters, form: Parameters
) -> Response[Any]:
    op = op_of(request)
    username, password = form.get("username") or "", form.get("password") or ""
    # A digest, so that unknown names of any length do not fill the memory.
    account_key = digest(username)
    address_key = request.client.host if request.client else "unknown"
    wait = max(op.account_failures.retry_after(account_key), op.address_failures.retry_after(address_key))
    if wait:
        problem = f"Too many attempts. Try again in {wait} seconds."
        response = show_sign_in(request, wanted, parameters, status=429, problem=problem, username=username)
        response.headers["Retry-After"] = str(wait)
        return response
    account = _check_password(op, username, password)
    if account is None:
        op.account_failures.record_failure(account_key)
        op.address_failures.record_failure(address_key)
        _log.info("a password was refused")
        problem = "User name or password is wrong."
        return show_sign_in(request, wanted, parameters, status=400, problem=problem, username=username)
    op.account_failures.forget(account_key)
    return await _finish(request, wanted, account, acr=ACR_PASSWORD, amr=("pwd",))


def _check_password(op: EmbeddedOp, username: str, password: str) -> Account | None:
    account = op.account(username)
    # Compared for unknown names too, so that timing does not tell which names exist (ASVS 6.3.8).
    right = same(password, account.password if account else op.settings.issuer)
    return account if right else None


async def _finish(
    request: OpRequest, wanted: AuthorizationRequest, account: Account, *, acr: str, amr: tuple[str, ...]
) -> Response[Any]:
    op, previous = op_of(request), session_of(request)
    if wanted.hinted_sub not in {None, account.sub}:
        # OIDC Core 3.1.2.1: never answer about another user than the one in id_token_hint.
        error = AuthorizationError("login_required", "Another user than the hinted one signed in.")
        return send_error(wanted.reply_to, op.settings.issuer, error)
    cookie, session = op.sessions.begin(account.sub, acr=acr, amr=amr, previous=previous)
    if previous is not None and previous is not session:
        # One user per browser: a switch ends the former user's sessions at other applications.
        op.notifier.start(op.end(previous))
    response = grant_code(op, wanted, session)
    lifetime = op.settings.lifetimes.op_session
    response.set_cookie(new_cookie(request, SESSION_COOKIE, cookie, max_age=lifetime))
    _log.info("signed in %s for %s", account.sub, wanted.reply_to.client.client_id)
    return response
