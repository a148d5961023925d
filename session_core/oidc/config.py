"""Everything that can be configured about the login, checked when it is built."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from session_core.errors import ConfigurationError
from session_core.identity import Identity
from session_core.oidc.provider import OidcProvider
from session_core.same_origin import origin_of
from session_core.sealing import SealingKeys

if TYPE_CHECKING:
    import httpx2

    from session_core.session import SessionHandle

__all__ = ("DataChange", "LoginHook", "OidcConfig")

DataChange: TypeAlias = "Callable[[Any], Any]"
"""A function as for `session.update`: gets the session's data, changes it in place or returns new data."""
LoginHook: TypeAlias = "Callable[[Identity, Mapping[str, Any], SessionHandle[Any]], Awaitable[DataChange | None]]"


@dataclass(frozen=True, kw_only=True)
class OidcConfig:
    """How users log in. Raises `ConfigurationError` when built with a value that cannot work."""

    providers: Sequence[OidcProvider]
    """Where users log in; one for now."""
    public_url: str
    """Scheme, host and port under which browsers reach the application; the only source of redirect URIs. Must be the
    session's public URL."""
    sealing: SealingKeys = field(repr=False)
    """Encrypts login transactions in cookies, and tokens in the session store."""
    http_timeout_seconds: float = 5
    """The longest that any one call to the provider may take, as a whole."""
    post_logout_path: str = "/"
    """Where the browser is after a logout; `{public_url}{post_logout_path}` is registered with the provider."""
    on_login: LoginHook | None = None
    """Called with the identity, all claims (userinfo below, ID token above) and the session as it was, when everything
    has been verified and before the session changes: create or update the user here; raise to refuse the login. May return
    a function that is applied to the data of the new session."""
    jwks_cooldown_seconds: float = 10
    """How long an unknown key or a bad signature cannot make us fetch the provider's keys again."""
    transport: httpx2.AsyncBaseTransport | None = field(default=None, repr=False)
    """Replaces the network towards the provider: for tests, a proxy, or a certificate authority of your own."""

    def __post_init__(self) -> None:
        """Check what can be checked without a request."""
        if len(self.providers) != 1:
            msg = "exactly one provider is supported, for example providers=[OidcProvider(issuer=..., client_id=...)]"
            raise ConfigurationError(msg)
        origin_of(self.public_url)
        if urlsplit(self.public_url).path not in {"", "/"}:
            msg = "public_url must be scheme, host and optional port, for example https://app.example.org"
            raise ConfigurationError(msg)
        if self.http_timeout_seconds <= 0 or self.jwks_cooldown_seconds < 0:
            msg = "timeouts must be positive seconds, for example http_timeout_seconds=5"
            raise ConfigurationError(msg)
        path = self.post_logout_path
        if not path.startswith("/") or path.startswith("//") or "\\" in path or not path.isascii() or not path.isprintable():
            msg = 'post_logout_path must be a local path, for example "/goodbye"'
            raise ConfigurationError(msg)

    @property
    def provider(self) -> OidcProvider:
        """The provider."""
        return self.providers[0]

    @property
    def redirect_uri(self) -> str:
        """Where the provider sends the browser after a login; registered with it, character for character."""
        return f"{self.public_url.rstrip('/')}/auth/callback"

    @property
    def post_logout_redirect_uri(self) -> str:
        """Where the provider sends the browser after a logout; registered with it, character for character."""
        return f"{self.public_url.rstrip('/')}{self.post_logout_path}"
