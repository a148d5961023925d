"""Logs a test client in with one line: a real session in the application's store, a real signed cookie in the client."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec
from litestar import Litestar
from litestar.testing import TestClient

from session_core.identity import Identity
from session_core.litestar.plugin import SessionPlugin
from session_core.sessions.record import Device

__all__ = ("log_in", "log_in_sync", "logged_in_cookie")

_ISSUER = "https://issuer.test"

T = TypeVar("T")


class _HasCookies(Protocol):
    @property
    def cookies(self) -> MutableMapping[str, str]: ...


async def logged_in_cookie(app: Litestar, user: Identity | str, data: msgspec.Struct | None = None) -> tuple[str, str]:
    """Store a session in which `user` is logged in; return the name and value of its cookie.

    A user given by name is that subject of the issuer `https://issuer.test`, logged in now. `data` is the session's data;
    what a fresh session has when None.
    """
    plugin = app.plugins.get(SessionPlugin)
    now = plugin.config.clock.now() // 1000
    identity = user if isinstance(user, Identity) else Identity(issuer=_ISSUER, subject=user, auth_time=now)
    codec: Any = plugin.lifecycle.codec
    encoded = codec.encode(codec.fresh() if data is None else data)
    session_id, _ = await plugin.lifecycle.begin(encoded, device=Device(), identity=identity)
    header = plugin.config.resolved_cookie.set_header(plugin.config.signer.sign(session_id), None)
    name, _, value = header.partition(b";")[0].partition(b"=")
    return name.decode(), value.decode()


async def log_in(client: _HasCookies, app: Litestar, user: Identity | str, data: msgspec.Struct | None = None) -> None:
    """Log an asynchronous client of `app` in (see `logged_in_cookie`); works with any client that has `cookies`."""
    _keep(client, app, *await logged_in_cookie(app, user, data))


def log_in_sync(client: TestClient[Litestar], user: Identity | str, data: msgspec.Struct | None = None) -> None:
    """Log Litestar's synchronous test client in (see `logged_in_cookie`)."""
    with client.portal() as portal:
        name, value = portal.call(logged_in_cookie, client.app, user, data)
    _keep(client, client.app, name, value)


def _keep(client: _HasCookies, app: Litestar, name: str, value: str) -> None:
    """Put the cookie where the application's own Set-Cookie would: the next one replaces it, instead of standing beside it."""
    cookie = app.plugins.get(SessionPlugin).config.resolved_cookie
    keep, host = getattr(client.cookies, "set", None), urlsplit(str(getattr(client, "base_url", ""))).hostname
    if keep is None or host is None:
        client.cookies[name] = value
        return
    # As Python's cookie jars name them: a name of one part belongs to `.local`.
    own = host if "." in host or ":" in host else f"{host}.local"
    keep(name, value, domain=own if cookie.domain is None else f".{cookie.domain}", path=cookie.path)
