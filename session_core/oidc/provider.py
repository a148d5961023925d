"""One identity provider as the application registered with it, checked when it is built; asks the provider nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from session_core.errors import ConfigurationError
from session_core.oidc.addresses import is_provider_url, origin_of_url

__all__ = ("SIGNING_ALGORITHMS", "OidcProvider")

SIGNING_ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
"""What may sign a token: asymmetric algorithms only, whatever a provider's metadata lists. With `none` nobody signed;
with HS256 the key would be the client secret or, in the classic confusion, the provider's public key (RFC 8725 2.1)."""

_OURS: Final = frozenset(
    {
        "client_id", "client_secret", "code", "code_challenge", "code_challenge_method", "nonce", "redirect_uri", "request",
        "request_uri", "response_mode", "response_type", "scope", "state",
    }
)  # fmt: skip
_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")


@dataclass(frozen=True, kw_only=True)
class OidcProvider:
    """A provider and our registration with it. Raises `ConfigurationError` for values that cannot work."""

    issuer: str
    """The provider's issuer identifier, exactly as it writes it itself (OpenID Connect Discovery 3), slash or no slash."""
    client_id: str
    """Who we are to the provider."""
    client_secret: str | None = field(default=None, repr=False)
    """What the provider gave us to prove that; `None` for a public client (`token_endpoint_auth_method="none"`)."""
    id: str = "default"
    """Our own short name for the provider: in sealed state, never on the wire."""
    scopes: Sequence[str] = ("openid", "profile", "email")
    """What is asked for; `openid` must be among them, `offline_access` asks for a refresh token."""
    token_endpoint_auth_method: Literal["client_secret_basic", "client_secret_post", "none"] = "client_secret_basic"  # noqa: S105 - the name of a method
    """How the secret is sent to the token endpoint (OpenID Connect Core 9)."""
    signing_algorithms: Sequence[str] = ()
    """The algorithms that the provider signs our tokens with, when fewer than its metadata lists."""
    logout_token_typ: Literal["strict", "if_present"] = "strict"  # noqa: S105 - a mode
    """`strict` requires `typ: logout+jwt`; `if_present` also takes logout tokens without it, as older providers send them."""
    use_userinfo: bool = True
    """Whether claims are also fetched from the userinfo endpoint, where there is one."""
    authorization_params: Mapping[str, str] = field(default_factory=dict)
    """Further parameters for the authorization endpoint, for example `{"audience": "..."}`."""
    allow_http: bool = False
    """Accept http for a provider on a loopback address: development only."""

    def __post_init__(self) -> None:
        """Check what can be checked without the provider."""
        if not is_provider_url(self.issuer, allow_http=self.allow_http) or "?" in self.issuer:
            msg = (
                "the issuer must be an https URL without query and fragment, for example https://login.example.org "
                "(http needs allow_http and a loopback host)"
            )
            raise ConfigurationError(msg)
        if not self.client_id.isascii() or not self.client_id.isprintable() or not self.client_id:
            msg = "client_id must be the identifier that the provider issued, for example my-app"
            raise ConfigurationError(msg)
        if not _ID.match(self.id):
            msg = "a provider's id is lower-case letters, digits and hyphens, for example keycloak"
            raise ConfigurationError(msg)
        if "openid" not in self.scopes or any(not scope or " " in scope for scope in self.scopes):
            msg = 'scopes must be single words and include openid, for example ("openid", "profile", "email")'
            raise ConfigurationError(msg)
        self._check_secret()
        if unknown := set(self.signing_algorithms) - SIGNING_ALGORITHMS:
            msg = f"{', '.join(sorted(unknown))} must not sign tokens; choose from {', '.join(sorted(SIGNING_ALGORITHMS))}"
            raise ConfigurationError(msg)
        if clashing := _OURS & set(self.authorization_params):
            msg = f"authorization_params must not set {', '.join(sorted(clashing))}: the login decides about them"
            raise ConfigurationError(msg)

    @property
    def origin(self) -> str:
        """Scheme, host and port of the issuer; a page that posts a logout form needs it in its CSP's form-action."""
        return origin_of_url(self.issuer)

    def accepted_algorithms(self, advertised: Sequence[str]) -> frozenset[str]:
        """Return what may sign this provider's tokens, given what its metadata lists (nothing listed: no narrowing)."""
        accepted = frozenset(self.signing_algorithms) or SIGNING_ALGORITHMS
        return accepted & frozenset(advertised) if advertised else accepted

    def _check_secret(self) -> None:
        if self.token_endpoint_auth_method not in {"client_secret_basic", "client_secret_post", "none"}:
            msg = "token_endpoint_auth_method must be client_secret_basic, client_secret_post or none"
            raise ConfigurationError(msg)
        if (self.token_endpoint_auth_method == "none") != (not self.client_secret):  # noqa: S105 - the name of a method
            msg = 'a client_secret is needed, or token_endpoint_auth_method="none" for a public client without one'
            raise ConfigurationError(msg)
