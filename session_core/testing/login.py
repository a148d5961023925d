"""Logs a test client in with one line: a real session in the application's store, a real signed cookie in the client."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import urlsplit

import msgspec

from session_core.asgi.application import SessionApplication
from session_core.errors import ConfigurationError
from session_core.identity import Identity
from session_core.sessions.record import Device

if TYPE_CHECKING:
    from litestar import Litestar

__all__ = ("log_in", "log_in_sync", "logged_in_cookie")

_ISSUER = "https://issuer.test"


class _HasCookies(Protocol):
    @property
    def cookies(self) -> MutableMapping[str, str]: ...


class _HasSessions(Protocol):
    """`StarletteSessions`."""

    application: SessionApplication[Any]


class _TestClient(_HasCookies, Protocol):
    """Litestar's or Starlette's."""

    app: Any

    @property
    def portal(self) -> Any: ...  # noqa: ANN401 - a method of Litestar's that returns it, an attribute of Starlette's


_App: TypeAlias = "Litestar | _HasSessions"


async def logged_in_cookie(app: _App, user: Identity | str, data: msgspec.Struct | None = None) -> tuple[str, str]:
    """Store a session in which `user` is logged in; return the name and value of its cookie.

    `app` is the Litestar application, or the `StarletteSessions` of another one. A user given by name is that subject of the
    issuer `https://issuer.test`, logged in now. `data` is the session's data; what a fresh session has when None.
    """
    sessions = _sessions_of(app)
    config, codec = sessions.config, sessions.lifecycle.codec
    now = config.clock.now() // 1000
    identity = user if isinstance(user, Identity) else Identity(issuer=_ISSUER, subject=user, auth_time=now)
    encoded = codec.encode(codec.fresh() if data is None else data)
    session_id, _ = await sessions.lifecycle.begin(encoded, device=Device(), identity=identity)
    header = config.resolved_cookie.set_header(config.signer.sign(session_id), None)
    name, _, value = header.partition(b";")[0].partition(b"=")
    return name.decode(), value.decode()


async def log_in(client: _HasCookies, app: _App, user: Identity | str, data: msgspec.Struct | None = None) -> None:
    """Log an asynchronous client of `app` in (see `logged_in_cookie`); works with any client that has `cookies`."""
    _keep(client, app, *await logged_in_cookie(app, user, data))


def log_in_sync(
    client: _TestClient, user: Identity | str, data: msgspec.Struct | None = None, *, app: _App | None = None
) -> None:
    """Log the synchronous test client of Litestar, or with `app` that of Starlette, in (see `logged_in_cookie`)."""
    target: _App = client.app if app is None else app
    portal: Any = client.portal
    if portal is None:
        msg = "the store is not open: use the test client in a with statement"
        raise ConfigurationError(msg)
    opened: Any = portal() if callable(portal) else nullcontext(portal)
    with opened as thread:
        cookie = thread.call(logged_in_cookie, target, user, data)
    _keep(client, target, *cookie)


def _sessions_of(app: Any) -> SessionApplication[Any]:  # noqa: ANN401 - of several frameworks
    if isinstance(sessions := getattr(app, "application", None), SessionApplication):
        return sessions
    if not hasattr(app, "plugins"):
        msg = "app must be the Litestar application, or the StarletteSessions of another one"
        raise ConfigurationError(msg)
    from session_core.litestar.plugin import SessionPlugin  # noqa: PLC0415 - other frameworks do without Litestar

    return app.plugins.get(SessionPlugin).application  # type: ignore[no-any-return]


def _keep(client: _HasCookies, app: _App, name: str, value: str) -> None:
    """Put the cookie where the application's own Set-Cookie would: the next one replaces it, instead of standing beside it."""
    cookie = _sessions_of(app).config.resolved_cookie
    keep, host = getattr(client.cookies, "set", None), urlsplit(str(getattr(client, "base_url", ""))).hostname
    if keep is None or host is None:
        client.cookies[name] = value
        return
    # As Python's cookie jars name them: a name of one part belongs to `.local`.
    own = host if "." in host or ":" in host else f"{host}.local"
    keep(name, value, domain=own if cookie.domain is None else f".{cookie.domain}", path=cookie.path)
