"""The records of the provider; plain data without behaviour."""

from dataclasses import dataclass, field

__all__ = ("AccessToken", "AuthorizationCode", "Grant", "OpSession", "RefreshToken")


@dataclass(slots=True, kw_only=True)
class OpSession:
    """A user signed in at the provider in one browser; `sid` is public, the cookie value is kept as a digest."""

    sid: str
    sub: str
    auth_time: int
    acr: str
    amr: tuple[str, ...]
    cookie_digest: str = field(repr=False)
    client_ids: set[str] = field(default_factory=set)
    ended: bool = False


@dataclass(slots=True, kw_only=True)
class Grant:
    """One sign-in of one user at one client: the family that its code and all its tokens belong to.

    Revoking the grant ends them all at once (RFC 9700 4.14.2). A grant with `offline_access` outlives the
    provider session (OIDC Back-Channel Logout 2.7).
    """

    client_id: str
    sub: str
    sid: str
    scope: str
    auth_time: int
    acr: str
    amr: tuple[str, ...]
    session: OpSession = field(repr=False)
    expires_at: float = 0.0
    revoked: bool = False

    @property
    def offline(self) -> bool:
        """Whether the user allowed access beyond the provider session."""
        return "offline_access" in self.scope.split()


@dataclass(slots=True, kw_only=True)
class AuthorizationCode:
    """What an authorization code was issued for (RFC 6749 4.1.2, RFC 7636 4.4)."""

    grant: Grant
    redirect_uri: str
    code_challenge: str = field(repr=False)
    nonce: str | None = field(default=None, repr=False)

    code_challenge_method = "S256"

    def get_redirect_uri(self) -> str:
        """Return the URI the token request must repeat."""
        return self.redirect_uri

    def get_scope(self) -> str:
        """Return the granted scope, space separated."""
        return self.grant.scope


@dataclass(slots=True, kw_only=True)
class AccessToken:
    """A live access token of `grant`; `scope` may be narrower than the grant's."""

    grant: Grant
    scope: str

    def check_client(self, client: object) -> bool:
        """Tell whether the token was issued to `client`."""
        return self.grant.client_id == getattr(client, "client_id", None)


@dataclass(slots=True, kw_only=True)
class RefreshToken:
    """A refresh token of `grant`; once `used` it must never be seen again (RFC 9700 4.14.2)."""

    grant: Grant
    used: bool = False

    def check_client(self, client: object) -> bool:
        """Tell whether the token was issued to `client`."""
        return self.grant.client_id == getattr(client, "client_id", None)

    def get_scope(self) -> str:
        """Return the scope first granted, space separated."""
        return self.grant.scope
