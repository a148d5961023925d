"""One OpenID provider as the application registered with it, checked when it is built; asks the provider nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from session_core.errors import ConfigurationError
from session_core.oidc.provider.registration import Registration, check_scopes

__all__ = ("SIGNING_ALGORITHMS", "OidcProvider")

SIGNING_ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
"""What may sign a token: asymmetric algorithms only, whatever a provider's metadata lists. `none` has no signature;
with HS256 the key would be the client secret or, in the classic confusion, the provider's public key (RFC 8725 2.1)."""


@dataclass(frozen=True, kw_only=True)
class OidcProvider(Registration):
    """An OpenID provider and our registration with it. Raises `ConfigurationError` for values that cannot work.

    `issuer` is written exactly as the provider writes it itself (OpenID Connect Discovery 3), slash or no slash.
    """

    scopes: Sequence[str] = ("openid", "profile", "email")
    """What is asked for; `openid` must be among them, `offline_access` asks for a refresh token."""
    max_age: int | None = None
    """Every login must be at most so many seconds old at the provider; a login that asks for less gets less."""
    acr_values: Sequence[str] = ()
    """Every login must have one of these authentication context classes; a guard's classes must be among them."""
    signing_algorithms: Sequence[str] = ()
    """The algorithms that the provider signs our tokens with, when fewer than its metadata lists."""
    logout_token_typ: Literal["strict", "if_present"] = "strict"  # noqa: S105 - a mode
    """`strict` requires `typ: logout+jwt` and `exp`; `if_present` also takes logout tokens without `exp`, and those without `typ`
    or with the general `JWT`, as older providers send them."""
    step_up_prompt: bool = False
    """Whether a login that must be recent (`max_age`) also sends `prompt=login`: for providers that ignore `max_age`."""
    verify_reauthentication: bool = True
    """Whether the first login of a browser whose session was ended from elsewhere must prove by `auth_time` that the user has
    logged in at the provider since. Without it that is asked for, and not checked: for providers that never say `auth_time`."""
    use_userinfo: bool = True
    """Whether claims are also fetched from the userinfo endpoint, where there is one."""

    def __post_init__(self) -> None:
        """Check what can be checked without the provider."""
        super().__post_init__()
        check_scopes(self.scopes)
        if "openid" not in self.scopes:
            msg = 'scopes must include openid, for example ("openid", "profile", "email")'
            raise ConfigurationError(msg)
        if unknown := set(self.signing_algorithms) - SIGNING_ALGORITHMS:
            msg = f"{', '.join(sorted(unknown))} must not sign tokens; choose from {', '.join(sorted(SIGNING_ALGORITHMS))}"
            raise ConfigurationError(msg)
        if self.logout_token_typ not in {"strict", "if_present"}:
            msg = "logout_token_typ must be strict or if_present"
            raise ConfigurationError(msg)
        if self.max_age is not None and self.max_age < 0:
            msg = "max_age is seconds, for example 3600"
            raise ConfigurationError(msg)
        check_scopes(self.acr_values)

    @property
    def scope(self) -> str:
        """What is asked for (RFC 6749 3.3)."""
        return " ".join(self.scopes)

    def accepted_algorithms(self, advertised: Sequence[str]) -> frozenset[str]:
        """Return what may sign this provider's tokens, given what its metadata lists (nothing listed: no narrowing)."""
        accepted = frozenset(self.signing_algorithms) or SIGNING_ALGORITHMS
        return accepted & frozenset(advertised) if advertised else accepted
