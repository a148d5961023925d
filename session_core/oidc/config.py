"""The configuration of the login, checked when it is built."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import httpx2

from session_core.cookies import CookieConfig
from session_core.errors import ConfigurationError
from session_core.identity import Identity
from session_core.oidc.batch_config import BatchRefresh
from session_core.oidc.http import check_proxy, tls_context
from session_core.oidc.native_clients import NativeClient
from session_core.oidc.provider.oauth2 import OAuth2Provider
from session_core.oidc.provider.openid import OidcProvider
from session_core.oidc.provider.registration import DEFAULT_ID, Registration
from session_core.sealing import SealingKeys
from session_core.sessions.handle import SessionHandle
from session_core.sessions.timeouts import Timeouts
from session_core.urls import BaseUrl, base_url_of, party_origin

__all__ = ("ChoicePage", "DataChange", "LoginHook", "LoginOptions", "OidcConfig", "ProviderChoice")

DataChange: TypeAlias = "Callable[[Any], Any]"
"""A function as for `session.update`: gets the session data, changes it in place or returns new data."""
ChoicePage: TypeAlias = "Callable[[Sequence[ProviderChoice]], str]"
LoginHook: TypeAlias = "Callable[[Identity, Mapping[str, Any], SessionHandle[Any]], Awaitable[LoginOptions | DataChange | None]]"


@dataclass(frozen=True, kw_only=True)
class LoginOptions:
    """What one login chooses for its session: "remember me", a kiosk. None stands for what is configured."""

    change: DataChange | None = None
    """Applied to the data of the new session; only in what `on_login` returns."""
    timeouts: Timeouts | None = None
    """Its own lifetimes; the touch interval stays the configured one."""
    persistent: bool | None = None
    """Whether its cookie outlives the browser, whatever `CookieConfig` says."""


@dataclass(frozen=True)
class ProviderChoice:
    """One way to log in. `href` is a local address with the parameters of the login."""

    id: str
    title: str
    href: str


@dataclass(frozen=True, kw_only=True)
class OidcConfig:
    """How users log in. Raises `ConfigurationError` for invalid values."""

    providers: Sequence[OidcProvider | OAuth2Provider]
    """The providers. The first is the default."""
    public_url: str
    """Scheme, host, port and path under which browsers reach the application; the only source of redirect URIs. Must be the
    session's public URL. If it has no path, the mount path or `root_path` of the application is added."""
    sealing: SealingKeys = field(repr=False)
    """Encrypts login transactions in cookies, and tokens in the session store."""
    http_timeout_seconds: float = 5
    """The timeout of each whole call to the provider."""
    post_logout_path: str = "/"
    """The page after a logout; `{public_url}{post_logout_path}` is registered with the provider."""
    on_login: LoginHook | None = None
    """Called after all checks, before the session changes, with the identity, all claims (the ID token overrides userinfo)
    and the current session: create or update the user here; raise to refuse the login. May return a function that is applied to
    the data of the new session, or `LoginOptions`, which override those that the link chose."""
    login_options: Mapping[str, LoginOptions] = field(default_factory=dict)
    """Which options a page may choose by name: `/auth/login?option=remember`, the value of a checkbox for example. Any other name
    is refused, and a link on another site chooses nothing."""
    native_clients: Sequence[NativeClient] = ()
    """Native applications that may log users in by `/auth/authorize` and `/auth/token`; needs `SessionConfig(bearer=True)`."""
    choice_page: ChoicePage | None = None
    """Returns the HTML of the page where users choose a provider, given the choices in order."""
    batch_refresh: BatchRefresh | None = None
    """Records when tokens expire, so that `litestar sessions refresh-tokens` can refresh those that are due."""
    requests_per_minute: int = 0
    """The most logins, callbacks and logout messages of one client address per minute, each counted separately, over all
    processes; 429 above that. 0 means no limit. Behind a proxy it needs `SessionConfig.device`; see `exempt_clients` there."""
    jwks_cooldown_seconds: float = 10
    """Seconds between fetches of the provider's keys that an unknown key or a bad signature causes."""
    proxy: str | None = field(default=None, repr=False)
    """A forward proxy for all calls to providers, `http://proxy.example.org:3128`; default: `HTTPS_PROXY` and `NO_PROXY`."""
    ca_file: str | Path | None = None
    """A PEM file of certificate authorities to trust for these calls, in addition to the usual ones. `SSL_CERT_FILE` and
    `SSL_CERT_DIR` replace the usual ones."""
    transport: httpx2.AsyncBaseTransport | None = field(default=None, repr=False)
    """Replaces the network, for tests."""

    def __post_init__(self) -> None:
        """Check what can be checked without a request."""
        self._check_providers()
        if len({client.id for client in self.native_clients}) != len(self.native_clients):
            msg = 'each native client needs a different id, for example NativeClient(id="desktop", ...)'
            raise ConfigurationError(msg, option="native_clients")
        origin = self.base.origin
        if any(party_origin(uri) == origin for client in self.native_clients for uri in client.redirect_uris):
            msg = "a redirect URI of a native client must not be on the application itself, whose scripts could read the code"
            raise ConfigurationError(msg, option="native_clients")
        if self.http_timeout_seconds <= 0 or self.jwks_cooldown_seconds < 0:
            msg = "timeouts must be positive seconds, for example http_timeout_seconds=5"
            raise ConfigurationError(msg)
        if self.proxy is not None:
            check_proxy(self.proxy)
        if self.ca_file is not None:
            tls_context(self.ca_file)
        if self.requests_per_minute < 0:
            msg = "requests_per_minute must be 0 (no limit) or more, for example 60"
            raise ConfigurationError(msg)
        for name, options in self.login_options.items():
            if not name.isascii() or not name.isidentifier() or options.change is not None:
                msg = 'login_options are named by words and change no data, for example {"kiosk": LoginOptions(persistent=False)}'
                raise ConfigurationError(msg)
        path = self.post_logout_path
        if not path.startswith("/") or path.startswith("//") or "\\" in path or not path.isascii() or not path.isprintable():
            msg = 'post_logout_path must be a local path, for example "/goodbye"'
            raise ConfigurationError(msg)

    def provider_of(self, issuer: str) -> OidcProvider | OAuth2Provider | None:
        """Return the provider of an issuer, for example `identity.issuer`; None if it is no longer configured."""
        return next((provider for provider in self.providers if provider.is_issuer(issuer)), None)

    @property
    def base(self) -> BaseUrl:
        """Origin and path of the public URL."""
        return base_url_of(self.public_url)

    def redirect_uri(self, provider: Registration, base: BaseUrl | None = None) -> str:
        """Return where this provider sends the browser after a login; registered with it, character for character.

        No two providers share one: a response at another provider's address is refused (RFC 9700 4.4). `base`: the URL at which
        the request reached the application, if not the public URL.
        """
        own = "" if provider.id == DEFAULT_ID else f"/{provider.id}"
        return f"{(base or self.base).url}/auth/callback{own}"

    def _check_providers(self) -> None:
        if not self.providers:
            msg = "at least one provider is needed, for example providers=[OidcProvider(issuer=..., client_id=...)]"
            raise ConfigurationError(msg)
        if len({provider.id for provider in self.providers}) != len(self.providers):
            msg = 'each provider needs a different id, for example OAuth2Provider(id="github", ...)'
            raise ConfigurationError(msg)
        shared = [one for one in self.providers for other in self.providers if one is not other and other.is_issuer(one.issuer)]
        if shared or len({provider.issuer for provider in self.providers}) != len(self.providers):
            msg = "no two providers may have the same issuer: with the subject it names the user"
            raise ConfigurationError(msg)
        posting = any(provider.response_mode == "form_post" for provider in self.providers)
        if posting:
            # Its cookie is SameSite=None, so Secure: browsers accept that from https, and most of them from loopback hosts.
            CookieConfig(name="login-post", same_site="none", secure=True).resolve(self.public_url)
