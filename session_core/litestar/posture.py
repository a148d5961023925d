"""Reports invalid settings for production, differences between CORS and trusted origins, and every route with its guards."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from litestar import Controller, Litestar, Router
from litestar.config.cors import CORSConfig
from litestar.routes import HTTPRoute, WebSocketRoute

from session_core.config import SessionConfig
from session_core.litestar.routes import is_public, is_session_guard, resolved
from session_core.stores.base import StoreCapabilities
from session_core.trusted_origins import native_origin
from session_core.urls import normalised_origin

__all__ = ("RoutePosture", "cors_disagreements", "routes_posture", "routes_table", "session_problems")

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_ANY_SITE: Final = "https://any.site.invalid"

# An application is a router, too.
_LAYERS: Final = ((Litestar, "application"), (Router, "router"))


class RoutePosture(NamedTuple):
    """One route and method. `guards` has the layers they come from, exemptions, and whether cross-site requests are accepted."""

    path: str
    method: str
    guards: str


def session_problems(config: SessionConfig[Any], capabilities: StoreCapabilities) -> list[str]:
    """Return the settings that are not fit for production, one line each; never a value."""
    problems: list[str] = []
    if config.secrets_generated:
        problems.append("secrets: none is set, so sessions end with the process; set one of 32 bytes or more")
    if not config.public_url.startswith("https://"):
        problems.append("public_url: must be https, or anyone on the network path can read the session cookie")
    if not capabilities.shared:
        problems.append("store: a second worker cannot see the sessions; use a shared store")
    if not capabilities.durable:
        problems.append("store: a restart logs all users out; use a durable store")
    if not capabilities.atomic:
        problems.append("store: writes are not atomic, concurrent writes may be lost; use another store")
    if not capabilities.consistent:
        problems.append("store: eventually consistent, an ended session may be accepted for a while; use another store")
    return problems


def cors_disagreements(cors: CORSConfig, config: SessionConfig[Any]) -> list[str]:
    """Return one line for each origin that one of the two accepts and the other refuses.

    Regular expressions and functions are tried only with the origins listed by the other.
    """
    found: list[str] = []
    if not set(cors.allow_methods) <= _SAFE:
        for allowed in cors.allow_origins:
            sample = _ANY_SITE if allowed == "*" else allowed.replace("*", "any")
            origin = normalised_origin(sample.removesuffix("/")) or native_origin(sample)
            if origin is not None and origin != config.base.origin and origin not in config.trusted:
                # `*`, which is the default, is no origin to trust.
                fix = "list the origins there and in" if allowed == "*" else "add it to"
                found.append(
                    f"CORSConfig.allow_origins has {allowed}, but its POST, PUT, PATCH and DELETE get 403: {fix} "
                    'SessionConfig.trusted_origins, or give the routes opt={"cross_site": True}'
                )
    for origin in config.trusted.samples:
        if not cors.is_origin_allowed(origin):
            shown = origin.replace("://any.", "://*.")
            found.append(
                f"SessionConfig.trusted_origins has {shown}, but browsers show its scripts no response: add it to "
                "CORSConfig.allow_origins"
            )
        elif not cors.allow_credentials and not config.bearer:  # a bearer token is no credential in this sense
            found.append(
                f"SessionConfig.trusted_origins has {origin}, but browsers send its requests without the session cookie: "
                "CORSConfig(allow_credentials=True)"
            )
    return found


def routes_posture(app: Litestar) -> list[RoutePosture]:
    """Return each route and method, sorted by path."""
    rows: list[RoutePosture] = []
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            handlers = [(str(method), handler) for handler in route.route_handlers for method in handler.http_methods]
            rows.extend(_row(route.path, method, handler) for method, handler in handlers if method != "OPTIONS")
        elif isinstance(route, WebSocketRoute):
            rows.append(_row(route.path, "WS", route.route_handler))
    return sorted(rows)


def routes_table(rows: list[RoutePosture]) -> list[str]:
    """Return one line for each, in columns."""
    width = max((len(row.path) for row in rows), default=0)
    return [f"{row.path:{width}}  {row.method:6}  {row.guards}" for row in rows]


def _row(path: str, method: str, handler: Any) -> RoutePosture:  # noqa: ANN401 - any of Litestar's handlers
    return RoutePosture(path, method, _guards(handler) + _origin(handler))


def _guards(handler: Any) -> str:  # noqa: ANN401 - any of Litestar's handlers
    required: list[str] = []
    exempt: list[str] = []
    for guard, layer in _guards_by_layer(handler):
        name = getattr(getattr(guard, "func", guard), "__name__", type(guard).__name__).replace(
            "requires_login", "requires login"
        )
        inherited = f"{name} ({layer})" if layer else name
        (exempt if is_public(handler) and is_session_guard(guard) else required).append(inherited)
    shown = ", ".join(required) or "public"
    return f"{shown} (exempt from {', '.join(exempt)})" if exempt else shown


def _guards_by_layer(handler: Any) -> list[tuple[Any, str]]:  # noqa: ANN401 - likewise
    """Return the guards of a handler, the outermost first, with the layer that they are inherited from; empty for its own."""
    layers = getattr(handler, "ownership_layers", None)
    if layers is None:
        return [(guard, "") for guard in resolved(handler, "guards")]
    # Litestar makes a router of a controller: the one around the handlers that are its methods.
    controller = layers[-2] if isinstance(getattr(handler.fn, "__self__", None), Controller) else None
    found: list[tuple[Any, str]] = []
    for layer in layers:
        kind = "controller" if layer is controller else next((word for base, word in _LAYERS if isinstance(layer, base)), "")
        found.extend((guard, kind) for guard in layer.guards or ())
    return found


def _origin(handler: Any) -> str:  # noqa: ANN401 - any of Litestar's handlers
    return " (cross-site requests accepted)" if handler.opt.get("cross_site") else ""
