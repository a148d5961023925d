"""Every address under /auth; decides nothing."""

from __future__ import annotations

from session_core.oidc.relying_parties import RelyingParties
from session_core.oidc.routes.login import login_routes
from session_core.oidc.routes.logout import logout_routes
from session_core.oidc.routes.native import native_routes
from session_core.oidc.routes.route import Route, head_of
from session_core.oidc.routes.session_state import session_routes

__all__ = ("oidc_routes",)


def oidc_routes(relying_parties: RelyingParties) -> list[Route]:
    """Return the routes that these providers and native clients need."""
    routes = [
        *login_routes(relying_parties),
        *logout_routes(relying_parties),
        *native_routes(relying_parties),
        *session_routes(),
    ]
    return routes + [head_of(route) for route in routes if route.method == "GET"]
