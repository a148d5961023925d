"""Guards: logged in, a role, a typed predicate, a recent login, a phishing-resistant login."""

import time

import msgspec
from litestar import Litestar, get, post
from litestar.params import JSONBody

from session_core import Identity, Session, SessionConfig, SessionHandle, SessionPlugin
from session_core.guards import requires, requires_acr, requires_login, requires_recent_login, requires_role

ROLES = {"ada": {"user", "admin"}, "alice": {"user"}}
"""Instead of a database table of users."""
DISABLED: set[str] = set()


class AppSession(msgspec.Struct):
    accepted_terms: bool = False


class LoginData(msgspec.Struct):
    subject: str
    acr: str | None = None
    seconds_ago: int = 0


async def roles_of(session: SessionHandle[AppSession]) -> set[str]:
    """Return the roles. Called in every guarded request, so a removed role has no effect from the next request on."""
    return ROLES.get(session.identity.subject, set()) if session.identity else set()


@post("/login")
async def login(data: JSONBody[LoginData], session: Session[AppSession]) -> None:
    """Stand in for a real login; see own_login.py and oidc_login.py."""
    auth_time = int(time.time()) - data.seconds_ago
    await session.login(Identity(issuer="https://op.example", subject=data.subject, acr=data.acr, auth_time=auth_time))


@post("/terms", guards=[requires_login])
async def accept_terms(session: Session[AppSession]) -> None:
    """Change the field that the predicate below reads."""
    await session.update(accepted_terms=True)


@get("/profile", guards=[requires_login])
async def profile(session: Session[AppSession]) -> dict[str, str]:
    """For every logged-in user."""
    return {"subject": session.identity.subject if session.identity else ""}


@get("/shop", guards=[requires(AppSession, lambda session: session.data.accepted_terms)])
async def shop() -> str:
    """For sessions for which the predicate is true; mypy and pyright check the predicate."""
    return "shop"


@get("/admin", guards=[requires_role("admin")])
async def admin() -> str:
    """For users with the role."""
    return "admin"


@get("/password", guards=[requires_recent_login(minutes=5)])
async def change_password() -> str:
    """For a login of the last five minutes; others log in again and come back."""
    return "password"


@get("/transfer", guards=[requires_acr("phr")])
async def transfer() -> str:
    """For a login that the identity provider reports as phishing-resistant."""
    return "transfer"


app = Litestar(
    [login, accept_terms, profile, shop, admin, change_password, transfer],
    plugins=[
        SessionPlugin(SessionConfig(AppSession, roles=roles_of, is_active=lambda identity: identity.subject not in DISABLED))
    ],
)
