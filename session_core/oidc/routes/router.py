"""The addresses under /auth, put together for the configured providers; decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litestar import Router
from litestar.di import Provide

from session_core.oidc.routes.auth_headers import AuthHeaders
from session_core.oidc.routes.login import login_handlers
from session_core.oidc.routes.logout import logout_handlers

if TYPE_CHECKING:
    from session_core.oidc.logout.revocation import Revocation
    from session_core.oidc.relying_parties import RelyingParties

__all__ = ("oidc_router",)


def oidc_router(relying_parties: RelyingParties, revocation: Revocation) -> Router:
    """Return the routes under /auth."""
    return Router(
        path="/auth",
        route_handlers=[*login_handlers(relying_parties), *logout_handlers(relying_parties)],
        dependencies={
            "relying_parties": Provide(lambda: relying_parties, sync_to_thread=False),
            "revocation": Provide(lambda: revocation, sync_to_thread=False),
        },
        middleware=[AuthHeaders()],
        # The way to a login is open, whatever guards the application has on all its routes.
        opt={"exclude_from_auth": True},
        tags=["login"],
    )
