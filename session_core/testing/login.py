"""Logs a test client in with one line: a real session in the application's store, a real signed cookie in the client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from session_core.identity import Identity
from session_core.litestar.plugin import SessionPlugin
from session_core.sessions.record import Device

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from litestar import Litestar
    from litestar.testing import TestClient

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
    name, value = await logged_in_cookie(app, user, data)
    client.cookies[name] = value


def log_in_sync(client: TestClient[Litestar], user: Identity | str, data: msgspec.Struct | None = None) -> None:
    """Log Litestar's synchronous test client in (see `logged_in_cookie`)."""
    with client.portal() as portal:
        name, value = portal.call(logged_in_cookie, client.app, user, data)
    client.cookies[name] = value
