"""Login with OpenID Connect: a relying party that trusts a provider's answer only after every check.

login -> provider -> callback -> checks -> session.login          logout -> session.destroy -> provider

OidcPlugin(OidcConfig(
    providers=[OidcProvider(issuer="https://login.example.org", client_id="app", client_secret=...)],
    public_url="https://app.example.org",
    sealing=SealingKeys(parse_keys(...)),
))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from session_core.extras import extra

with extra("oidc", "authlib", "joserfc", "httpx2", wanted="session_core.oidc"):
    import authlib  # noqa: F401 - the login needs it; said here rather than at the first use

    from session_core.oidc.batch_config import BatchRefresh
    from session_core.oidc.claim_path import check_claim_path, claim_at, names_at
    from session_core.oidc.config import DataChange, LoginHook, LoginOptions, OidcConfig, ProviderChoice
    from session_core.oidc.login.return_to import local_return_to
    from session_core.oidc.native_clients import NativeClient
    from session_core.oidc.provider.apple import apple_client_secret
    from session_core.oidc.provider.client_key import ClientKey
    from session_core.oidc.provider.oauth2 import FetchJson, OAuth2Provider
    from session_core.oidc.provider.openid import OidcProvider
    from session_core.oidc.refresh.access_tokens import AccessTokens

if TYPE_CHECKING:
    from session_core.oidc.forward import ForwardPlugin, Upstream
    from session_core.oidc.plugin import OidcPlugin, Tokens

__all__ = (
    "AccessTokens", "BatchRefresh", "ClientKey", "DataChange", "FetchJson", "ForwardPlugin", "LoginHook", "LoginOptions",
    "NativeClient", "OAuth2Provider", "OidcConfig", "OidcPlugin", "OidcProvider", "ProviderChoice", "Tokens", "Upstream",
    "apple_client_secret", "check_claim_path", "claim_at", "local_return_to", "names_at",
)  # fmt: skip


_LITESTAR = {
    "ForwardPlugin": "session_core.oidc.forward",
    "OidcPlugin": "session_core.oidc.plugin",
    "Tokens": "session_core.oidc.plugin",
    "Upstream": "session_core.oidc.forward",
}


def __getattr__(name: str) -> object:
    if name not in _LITESTAR:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    with extra("litestar", "litestar", wanted=f"{__name__}.{name}"):
        found: object = getattr(import_module(_LITESTAR[name]), name)
    globals()[name] = found
    return found
