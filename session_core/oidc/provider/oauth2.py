"""One provider of plain OAuth 2.0 with a user endpoint, as GitHub is, checked when it is built; asks the provider nothing.

Such a provider proves less than an OpenID provider: nothing is signed, nothing says when or how the user logged in, and it
ends no sessions here. Who logged in is what its user endpoint says for the token that it has just given us.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from session_core.errors import ConfigurationError
from session_core.oidc.addresses import is_provider_url
from session_core.oidc.claim_path import check_claim_path
from session_core.oidc.provider.discovery import ProviderMetadata
from session_core.oidc.provider.registration import Registration, check_scopes

__all__ = ("FetchJson", "OAuth2Provider", "UserHook")

FetchJson: TypeAlias = Callable[[str], Awaitable[Any]]
"""`await fetch(url)`: the JSON at an address of the provider, asked for with the user's access token. Scheme, host and port
must be those of the user endpoint or the token endpoint."""
UserHook: TypeAlias = Callable[[Mapping[str, Any], FetchJson], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class OAuth2Provider(Registration):
    """A provider without OpenID Connect and our registration with it. Raises `ConfigurationError` for values that cannot work.

    `issuer` is a name of our own choice for it, an https URL that never changes: with the subject it names the user.
    """

    authorization_endpoint: str
    """Where the browser is sent."""
    token_endpoint: str
    """Where the code is redeemed; it must answer JSON."""
    userinfo_endpoint: str
    """Where the provider says who the user is, for an access token."""
    subject_claim: str = "id"
    """The path of the member that names the user there, `data.id` for example. It never changes or passes on to another user: no
    login name, no e-mail address."""
    scopes: Sequence[str] = ()
    """What is asked for; may be nothing."""
    scope_separator: Literal[" ", ","] = " "
    """What stands between scopes: a space (RFC 6749 3.3), or a comma at providers that are older than it."""
    response_issuer: str | None = None
    """What the provider sends as `iss` with every answer (RFC 9207), where it does; then an answer without it is refused."""
    revocation_endpoint: str | None = None
    """Where tokens are revoked (RFC 7009), where there is such a place."""
    pushed_authorization_request_endpoint: str | None = None
    """Where the login's parameters are pushed to (RFC 9126), where there is such a place."""
    claims: UserHook | None = None
    """`await claims(user, fetch)` returns the claims for `on_login`, made of what the user endpoint said and what `fetch(url)`
    brings, GitHub's list of e-mail addresses for example. The subject is taken from the user endpoint before that."""

    def __post_init__(self) -> None:
        """Check what can be checked without the provider."""
        super().__post_init__()
        check_scopes(self.scopes)
        if self.scope_separator not in {" ", ","}:
            msg = 'scope_separator must be " " or ","'
            raise ConfigurationError(msg)
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
            raise ConfigurationError(msg)

    @property
    def scope(self) -> str:
        """What is asked for, joined by the provider's separator."""
        return self.scope_separator.join(self.scopes)

    def metadata(self) -> ProviderMetadata:
        """Return what an OpenID provider would publish. There are no keys: nothing is signed."""
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
