"""Configuration of one plain OAuth 2.0 provider with a user endpoint, such as GitHub; checked when built, without a request.

Such a provider proves less than an OpenID provider: nothing is signed, the time and method of the login are unknown, and it ends
no sessions here. Its user endpoint names the user of the new access token.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from session_core.errors import ConfigurationError, check_choices
from session_core.oidc.claim_path import check_claim_path
from session_core.oidc.provider.discovery import ProviderMetadata
from session_core.oidc.provider.registration import Registration, check_words
from session_core.urls import is_provider_url

__all__ = ("FetchJson", "OAuth2Provider", "UserHook")

FetchJson: TypeAlias = Callable[[str], Awaitable[Any]]
"""`await fetch(url)` returns the JSON at a URL of the provider, fetched with the user's access token. Scheme, host and port must
be those of the user endpoint or the token endpoint."""
UserHook: TypeAlias = Callable[[Mapping[str, Any], FetchJson], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class OAuth2Provider(Registration):
    """A provider without OpenID Connect and our registration with it. Raises `ConfigurationError` for values that cannot work.

    `issuer` is an https URL of your choice that never changes: with the subject it names the user.
    """

    authorization_endpoint: str
    """The authorization endpoint."""
    token_endpoint: str
    """The token endpoint; it must return JSON."""
    userinfo_endpoint: str
    """The endpoint that returns the user of an access token."""
    subject_claim: str = "id"
    """The path of the member that names the user, `data.id` for example. It must never change or be reassigned, so not a login
    name or an e-mail address."""
    scopes: Sequence[str] = ()
    """The requested scopes; may be empty."""
    scope_separator: Literal[" ", ","] = " "
    """The separator of scopes: a space (RFC 6749 3.3), or a comma at older providers."""
    response_issuer: str | None = None
    """The `iss` of the provider's authorization responses (RFC 9207), if it sends one; then responses without it are refused."""
    revocation_endpoint: str | None = None
    """The revocation endpoint (RFC 7009), if there is one."""
    pushed_authorization_request_endpoint: str | None = None
    """The pushed authorization request endpoint (RFC 9126), if there is one."""
    claims: UserHook | None = None
    """`await claims(user, fetch)` returns the claims for `on_login`, made of the user endpoint's response and of `fetch(url)`,
    for example GitHub's list of e-mail addresses. The subject is taken from the user endpoint before that."""

    def __post_init__(self) -> None:
        """Check what can be checked without the provider."""
        super().__post_init__()
        check_words(self.scopes, "scopes")
        check_choices(OAuth2Provider, self)
        endpoints = (
            self.authorization_endpoint, self.token_endpoint, self.userinfo_endpoint, self.revocation_endpoint,
            self.pushed_authorization_request_endpoint,
        )  # fmt: skip
        if not all(is_provider_url(url, allow_http=self.allow_http) for url in endpoints if url is not None):
            msg = "the endpoints must be https URLs, for example https://github.com/login/oauth/access_token"
            raise ConfigurationError(msg)
        check_claim_path(self.subject_claim, "subject_claim")
        if self.pushed_authorization_requests == "required" and self.pushed_authorization_request_endpoint is None:
            msg = "pushed_authorization_requests needs a pushed_authorization_request_endpoint"
            raise ConfigurationError(msg, option="pushed_authorization_requests")

    @property
    def scope(self) -> str:
        """The requested scopes, joined by the provider's separator."""
        return self.scope_separator.join(self.scopes)

    def metadata(self) -> ProviderMetadata:
        """Return the metadata that an OpenID provider would publish, without keys, because nothing is signed."""
        return ProviderMetadata(
            issuer=self.response_issuer or self.issuer,
            authorization_endpoint=self.authorization_endpoint,
            token_endpoint=self.token_endpoint,
            jwks_uri="",
            userinfo_endpoint=self.userinfo_endpoint,
            end_session_endpoint=self.end_session_endpoint,
            revocation_endpoint=self.revocation_endpoint,
            pushed_authorization_request_endpoint=self.pushed_authorization_request_endpoint,
            authorization_response_iss_parameter_supported=self.response_issuer is not None,
        )
