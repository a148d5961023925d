"""A login that is not OpenID Connect: a form, a password, the same sessions and guards.

The one account and its password are constants, to keep the example short: keep password hashes (argon2id) in a database,
and limit the rate of attempts.
"""

import hmac
import time
from typing import Annotated

import msgspec
from litestar import Litestar, MediaType, get, post
from litestar.params import QueryParameter, URLEncodedBody
from litestar.response import Redirect, Response

from session_core import Identity, Session, SessionConfig, SessionPlugin, Sessions
from session_core.guards import requires_login

ISSUER = "https://app.example.org"
"""Names the login system: here the application itself."""
DEMO_USER, DEMO_PASSWORD = "alice", "correct horse battery staple"

PAGES = {"/account", "/account/devices"}
FORM = """<!doctype html><html lang="en"><title>Log in</title>
<form method="post" action="/login">
  <label>User <input name="user" autocomplete="username"></label>
  <label>Password <input name="password" type="password" autocomplete="current-password"></label>
  <button>Log in</button>
</form>"""


class AppSession(msgspec.Struct):
    return_to: str = "/account"


class LoginForm(msgspec.Struct):
    user: str
    password: str


@get("/login", media_type=MediaType.HTML)
async def login_form(session: Session[AppSession], return_to: Annotated[str | None, QueryParameter(name="next")] = None) -> str:
    """Show the form. A guard that redirects here puts the page to return to into `next`."""
    if return_to in PAGES:  # known pages only: a redirect to anywhere helps phishing
        session.data.return_to = return_to
    return FORM


@post("/login")
async def login(data: URLEncodedBody[LoginForm], session: Session[AppSession]) -> Response[str] | Redirect:
    """Check the password and log in: `login` always gives the session a new id."""
    known = hmac.compare_digest(data.user.encode(), DEMO_USER.encode())
    right = hmac.compare_digest(data.password.encode(), DEMO_PASSWORD.encode())
    if not (known and right):
        return Response(FORM, status_code=403, media_type=MediaType.HTML)
    await session.login(Identity(issuer=ISSUER, subject=data.user, auth_time=int(time.time()), amr=("pwd",)))
    return Redirect(session.data.return_to, status_code=303)


@get("/account", guards=[requires_login])
async def account(session: Session[AppSession]) -> dict[str, str]:
    """Show who is logged in."""
    return {"subject": session.identity.subject if session.identity else ""}


@get("/account/devices", guards=[requires_login])
async def devices(session: Session[AppSession], sessions: Sessions) -> list[dict[str, str | bool]]:
    """Show where the user is logged in. A handle names a session and gives no access."""
    if session.identity is None:
        return []
    return [
        {"device": summary.device.user_agent, "current": summary.handle == session.handle}
        for summary in await sessions.list_for(session.identity)
    ]


@post("/logout")
async def logout(session: Session[AppSession]) -> Redirect:
    """End this session: in the store first, then in the browser."""
    await session.destroy()
    return Redirect("/login", status_code=303)


@post("/logout-everywhere", guards=[requires_login])
async def logout_everywhere(session: Session[AppSession], sessions: Sessions) -> Redirect:
    """End all sessions of the user, on every device."""
    if session.identity is not None:
        await sessions.revoke_all(session.identity)
    await session.destroy()
    return Redirect("/login", status_code=303)


app = Litestar(
    [login_form, login, account, devices, logout, logout_everywhere],
    plugins=[SessionPlugin(SessionConfig(AppSession, login_path="/login"))],
)
