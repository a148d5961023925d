"""Configuration of one OpenID provider; checked when built, without a request."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from session_core.errors import ConfigurationError, DiscoveryError, check_choices
from session_core.oidc.claim_path import check_claim_path
from session_core.oidc.provider.discovery import ProviderMetadata, parse_metadata
from session_core.oidc.provider.registration import Registration, check_words
from session_core.oidc.verify.claims import MAX_SKEW_SECONDS
from session_core.urls import is_provider_url

__all__ = ("SIGNING_ALGORITHMS", "TENANT", "OidcProvider")

SIGNING_ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
"""The signature algorithms of tokens: only asymmetric ones, whatever a provider's metadata lists. `none` has no signature;
with HS256 the key would be the client secret or, in the classic confusion, the provider's public key (RFC 8725 2.1)."""
TENANT: Final = "{tenantid}"
"""The placeholder for the tenant in an issuer, as in the metadata of Entra ID."""
_TENANT_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


@dataclass(frozen=True, kw_only=True)
class OidcProvider(Registration):
    """An OpenID provider and our registration with it. Raises `ConfigurationError` for values that cannot work.

    `issuer` must be exactly as the provider writes it (OpenID Connect Discovery 3), including a slash at its end.
    """

    scopes: Sequence[str] = ("openid", "profile", "email")
    """The requested scopes; `openid` is required, `offline_access` asks for a refresh token."""
    max_age: int | None = None
    """The largest age in seconds of the login at the provider; one login may ask for less."""
    acr_values: Sequence[str] = ()
    """Every login must have one of these authentication context classes; a guard's classes must be among them."""
    signing_algorithms: Sequence[str] = ()
    """The algorithms that the provider signs our tokens with, when fewer than its metadata lists."""
    logout_token_typ: Literal["strict", "if_present"] = "strict"  # noqa: S105 - a mode
    """`strict` requires `typ: logout+jwt` and `exp`; `if_present` also accepts logout tokens without `exp`, and those without
    `typ` or with `JWT`, which older providers send."""
    step_up_prompt: bool = False
    """Whether a login that must be recent (`max_age`) also sends `prompt=login`: for providers that ignore `max_age`."""
    verify_reauthentication: bool = True
    """Whether the first login of a browser after its session was revoked must prove by `auth_time` that the user has logged in
    again. If false, that is requested but not checked: for providers that never send `auth_time`."""
    use_userinfo: bool = True
    """Whether claims are also fetched from the userinfo endpoint, if there is one."""
    metadata_url: str | None = None
    """The URL of the metadata, if not below the issuer (Azure AD B2C). They must still name the configured issuer."""
    metadata: Mapping[str, Any] | None = None
    """The metadata themselves (OpenID Connect Discovery 3), for a provider that publishes none: nothing is fetched then. At least
    `authorization_endpoint`, `token_endpoint` and `jwks_uri`."""
    tenants: Collection[str] | Callable[[str], bool] = ()
    """Ids of the tenants whose users may log in, or a function that decides about one: for an issuer with the placeholder
    `{tenantid}`. A token must name the issuer of the tenant that is its `tid`, and be signed by a key of that issuer. With the
    subject, that issuer names the user."""
    subject_claim: str = "sub"
    """The path of the claim of the ID token that names the user, when not `sub`: it must never change or pass on to another.
    A logout of the provider that names a user and no session is then refused."""
    clock_tolerance_seconds: int = 60
    """The largest difference between the provider's clock and ours, in seconds, at most 300."""
    accept_id_token_replay_without_nonce: bool = False
    """Log in without a nonce, for providers that do not return it. The risk: an ID token that was issued for another login here
    is not recognised as such."""

    def __post_init__(self) -> None:
        """Check what can be checked without the provider."""
        super().__post_init__()
        check_words(self.scopes, "scopes")
        if "openid" not in self.scopes:
            msg = 'scopes must include openid, for example ("openid", "profile", "email")'
            raise ConfigurationError(msg, option="scopes")
        if unknown := set(self.signing_algorithms) - SIGNING_ALGORITHMS:
            msg = f"{', '.join(sorted(unknown))} must not sign tokens; choose from {', '.join(sorted(SIGNING_ALGORITHMS))}"
            raise ConfigurationError(msg, option="signing_algorithms")
        check_choices(OidcProvider, self)
        if self.max_age is not None and self.max_age < 0:
            msg = "max_age is seconds, for example 3600"
            raise ConfigurationError(msg, option="max_age")
        check_words(self.acr_values, "acr_values")
        check_claim_path(self.subject_claim, "subject_claim")
        if not 0 <= self.clock_tolerance_seconds <= MAX_SKEW_SECONDS:
            msg = f"clock_tolerance_seconds is between 0 and {MAX_SKEW_SECONDS}, for example 60"
            raise ConfigurationError(msg, option="clock_tolerance_seconds")
        self._check_metadata()
        self._check_tenants()

    def is_issuer(self, issuer: str) -> bool:
        """Whether this issuer belongs to this provider: its own, or that of an admitted tenant."""
        if not self.tenants:
            return super().is_issuer(issuer)
        before, _, after = self.issuer.partition(TENANT)
        tenant = issuer.removeprefix(before).removesuffix(after)
        return self.issuer.replace(TENANT, tenant) == issuer and self._admits(tenant)

    def issuer_of(self, claims: Mapping[str, Any]) -> str | None:
        """Return the issuer that a token with these claims must name; None for a tenant that is not admitted."""
        if not self.tenants:
            return self.issuer
        tenant = claims.get("tid")
        return self.issuer.replace(TENANT, tenant) if isinstance(tenant, str) and self._admits(tenant) else None

    def given_metadata(self) -> ProviderMetadata | None:
        """Return the configured metadata, or None if the provider publishes them."""
        return None if self.metadata is None else parse_metadata({"issuer": self.issuer, **self.metadata}, self)

    def _admits(self, tenant: str) -> bool:
        # A lower-case UUID: the one spelling that Entra ID uses, so that a user has one issuer.
        if not _TENANT_ID.match(tenant):
            return False
        return self.tenants(tenant) is True if callable(self.tenants) else tenant in self.tenants

    def _any_issuer(self) -> str:
        return self.issuer.replace(TENANT, "0") if self.tenants else self.issuer

    def _check_metadata(self) -> None:
        if self.metadata is not None and self.metadata_url is not None:
            msg = "give either metadata or metadata_url: metadata that are given are not fetched"
            raise ConfigurationError(msg, option="metadata")
        try:
            self.given_metadata()
        except DiscoveryError:
            msg = (
                "metadata need https URLs as authorization_endpoint, token_endpoint and jwks_uri; "
                "an issuer there must be the configured one (OpenID Connect Discovery 3)"
            )
            raise ConfigurationError(msg, option="metadata") from None
        if self.metadata_url is not None and not is_provider_url(self.metadata_url, allow_http=self.allow_http):
            msg = "metadata_url must be an https URL, for example https://login.example.org/.well-known/openid-configuration"
            raise ConfigurationError(msg, option="metadata_url")

    def _check_tenants(self) -> None:
        if not self.tenants:
            return
        if self.issuer.count(TENANT) != 1 or (self.metadata_url is None and self.metadata is None):
            msg = f"tenants need {TENANT} in the issuer and a metadata_url, as the documentation for Entra ID shows"
            raise ConfigurationError(msg, option="tenants")
        ids = () if callable(self.tenants) else self.tenants
        if isinstance(ids, str) or not all(map(_TENANT_ID.match, ids)):
            msg = "tenants are the ids of tenants in lower case, for example 00000000-0000-0000-0000-000000000000"
            raise ConfigurationError(msg, option="tenants")
        if self.client_key is not None and self.client_assertion_audience == "issuer":
            msg = 'with tenants there is no single issuer: client_assertion_audience="token_endpoint"'
            raise ConfigurationError(msg, option="client_assertion_audience")

    @property
    def scope(self) -> str:
        """What is asked for (RFC 6749 3.3)."""
        return " ".join(self.scopes)

    def accepted_algorithms(self, advertised: Sequence[str]) -> frozenset[str]:
        """Return the accepted signature algorithms, narrowed by the `listed` ones of the metadata, if any."""
        accepted = frozenset(self.signing_algorithms) or SIGNING_ALGORITHMS
        return accepted & frozenset(advertised) if advertised else accepted
