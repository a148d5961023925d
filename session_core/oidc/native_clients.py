"""The native clients that may log users in, and their redirect URIs (RFC 8252 7); reads no request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from session_core.errors import ConfigurationError
from session_core.urls import party_origin

__all__ = ("NativeClient",)

_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,64}\Z")
_PATH: Final = r"(?:/[A-Za-z0-9._~-]+)*/?"
_LOOPBACK: Final = re.compile(rf"(?P<host>http://(?:127\.0\.0\.1|\[::1\]))(?::(?P<port>[1-9][0-9]{{0,4}}))?(?P<path>{_PATH})\Z")
_PRIVATE: Final = re.compile(rf"[a-z][a-z0-9+-]*(?:\.[a-z0-9+-]+)+:/{{1,2}}[A-Za-z0-9._~-]*{_PATH}\Z")
"""Of a scheme with a dot: the name of a domain of the application's owner, backwards (RFC 8252 7.1)."""
_MAX_URI: Final = 512
_MAX_PORT: Final = 65535


@dataclass(frozen=True)
class NativeClient:
    """A native application that logs users in through their browser. Raises `ConfigurationError` when it cannot work."""

    id: str
    """Its `client_id`. It has no secret: a program on the user's device cannot keep one."""
    redirect_uris: Sequence[str]
    """Where its logins may redirect to, each compared character for character: `http://127.0.0.1/callback` (with the port that it
    listens on), `com.example.app:/callback`, or an https address that the application has claimed."""
    title: str | None = None
    """The name that the user sees; the id when None."""

    def __post_init__(self) -> None:
        """Refuse an unsafe redirect URI."""
        if not _ID.match(self.id):
            msg = 'the id of a native client is 1 to 64 letters, digits and -._~, for example "desktop"'
            raise ConfigurationError(msg)
        if isinstance(self.redirect_uris, str) or not self.redirect_uris or not all(map(_is_safe, self.redirect_uris)):
            msg = (
                f"the redirect URIs of the native client {self.id} are a list of http://127.0.0.1/path or http://[::1]/path "
                "without a port, com.example.app:/path, or https://app.example.com/path, without query and fragment"
            )
            raise ConfigurationError(msg)

    @property
    def name(self) -> str:
        """The name that the user sees."""
        return self.title or self.id

    def allows(self, redirect_uri: str) -> bool:
        """Whether a login may redirect there: on loopback with any port (RFC 8252 7.3), else exactly as given."""
        if redirect_uri in self.redirect_uris:
            return True
        found = _LOOPBACK.match(redirect_uri) if len(redirect_uri) <= _MAX_URI else None
        if found is None or found["port"] is None or int(found["port"]) > _MAX_PORT:
            return False
        return found["host"] + found["path"] in self.redirect_uris


def _is_safe(uri: str) -> bool:
    if len(uri) > _MAX_URI or "?" in uri or "#" in uri:
        return False
    loopback = _LOOPBACK.match(uri)
    if loopback is not None:
        return loopback["port"] is None
    return _PRIVATE.match(uri) is not None or (uri.startswith("https://") and party_origin(uri) is not None)
