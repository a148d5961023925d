"""Sessions, guards and OpenID Connect login for FastAPI, Starlette and plain ASGI applications; without Litestar.

sessions = StarletteSessions(SessionConfig(AppSession, store="redis://localhost"))
Session = Annotated[SessionHandle[AppSession], Depends(get_session)]

app = FastAPI()
app.add_middleware(SessionMiddleware, sessions=sessions)

@app.post("/visit", dependencies=[Depends(requires_login)])
async def visit(session: Session) -> int:
return (await session.update(bump)).visits
"""

from __future__ import annotations

from session_core.starlette.dependencies import (
    forbids_impersonation,
    get_session,
    get_sessions,
    requires,
    requires_acr,
    requires_login,
    requires_recent_login,
    requires_role,
)
from session_core.starlette.middleware import SessionMiddleware, StarletteSessions

__all__ = (
    "SessionMiddleware",
    "StarletteSessions",
    "forbids_impersonation",
    "get_session",
    "get_sessions",
    "requires",
    "requires_acr",
    "requires_login",
    "requires_recent_login",
    "requires_role",
)
