"""What an operator should know before going live: unfit settings, and every route with its guards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar.routes import HTTPRoute, WebSocketRoute

if TYPE_CHECKING:
    from litestar import Litestar

    from session_core.config import SessionConfig
    from session_core.stores.base import StoreCapabilities

__all__ = ("routes_posture", "session_problems")


def session_problems(config: SessionConfig[Any], capabilities: StoreCapabilities) -> list[str]:
    """Return what makes these sessions unfit for production, one line each; never a value."""
    problems: list[str] = []
    if config.secrets_generated:
        problems.append("secrets: none is set, so sessions end with the process; set one of 32 bytes or more")
    if not config.public_url.startswith("https://"):
        problems.append("public_url: must be https, or anybody on the way can take the session cookie")
    if not capabilities.shared:
        problems.append("store: a second worker would not see the sessions; use a shared store")
    if not capabilities.durable:
        problems.append("store: a restart would log everybody out; use a durable store")
    if not capabilities.atomic:
        problems.append("store: writes are not atomic, concurrent writes may be lost; use another store")
    if not capabilities.consistent:
        problems.append("store: eventually consistent, an ended session may be accepted for a while; use another store")
    return problems


def routes_posture(app: Litestar) -> list[str]:
    """Return one line per route and method: path, guards, and whether it refuses cross-site requests."""
    rows: list[tuple[str, str, str, str]] = []
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            handlers = [(method, handler) for handler in route.route_handlers for method in handler.http_methods]
            rows.extend(
                (route.path, str(method), _guards(handler), _origin(handler))
                for method, handler in handlers
                if method != "OPTIONS"
            )
        elif isinstance(route, WebSocketRoute):
            rows.append((route.path, "WS", _guards(route.route_handler), _origin(route.route_handler)))
    width = max((len(row[0]) for row in rows), default=0)
    return [f"{path:{width}}  {method:6}  {guards}{origin}" for path, method, guards, origin in sorted(rows)]


def _guards(handler: Any) -> str:  # noqa: ANN401 - any of Litestar's handlers
    names = [getattr(getattr(guard, "func", guard), "__name__", type(guard).__name__) for guard in handler.resolve_guards()]
    return ", ".join(name.replace("requires_login", "requires login") for name in names) or "public"


def _origin(handler: Any) -> str:  # noqa: ANN401 - any of Litestar's handlers
    return "  (cross-site requests accepted)" if handler.opt.get("cross_site") else ""
