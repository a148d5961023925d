"""The configuration of an embedded provider: issuer, registered clients, demo accounts, lifetimes."""

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias
from urllib.parse import SplitResult, urlsplit

from auth_demo.op.loopback import is_loopback

__all__ = (
    "DEMO_ACCOUNTS",
    "DEMO_PASSWORD",
    "Account",
    "ClientAuthMethod",
    "Lifetimes",
    "OpSettings",
    "RegisteredClient",
    "origin_of",
)

ClientAuthMethod: TypeAlias = Literal["client_secret_basic", "client_secret_post", "none"]

DEMO_PASSWORD: Final = "demo"  # noqa: S105 - published on purpose, the provider refuses to leave loopback


def origin_of(uri: str) -> str:
    """Return ``scheme://host[:port]`` of an absolute URI, as CSP source lists want it."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}"


def _split(uri: str) -> SplitResult:
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError as error:
        message = f"{uri!r} is no URI: {error}"
        raise ValueError(message) from None
    return parts


def _require_web_uri(name: str, uri: str) -> None:
    """Refuse a registered URI that could not be compared exactly or would carry a code in clear text."""
    parts = _split(uri)
    good = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    clean = uri.isascii() and uri.isprintable() and not set(uri) & set(" \"'<>\\;,*#")
    if not (good and clean and parts.hostname and parts.username is None and parts.password is None):
        message = (
            f"{name} {uri!r} must be an absolute https URI (http only for this machine) without user name, "
            "fragment, wildcard or spaces, for example http://localhost:8000/auth/callback"
        )
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisteredClient:
    """A relying party known to the provider; every URI is compared character by character (RFC 9700 4.1.3).

    `token_endpoint_auth_method` ``none`` makes it a public client, which must have no secret; the other
    methods need one. Raises `ValueError` when the registration is unusable.
    """

    client_id: str
    redirect_uris: tuple[str, ...]
    client_secret: str | None = field(default=None, repr=False)
    client_name: str = ""
    post_logout_redirect_uris: tuple[str, ...] = ()
    backchannel_logout_uri: str | None = None
    frontchannel_logout_uri: str | None = None
    token_endpoint_auth_method: ClientAuthMethod = "client_secret_basic"  # noqa: S105 - a method

    def __post_init__(self) -> None:
        if not self.client_id or not self.client_id.isascii() or not self.client_id.isprintable():
            message = f"client_id {self.client_id!r} must be printable ASCII and not empty"
            raise ValueError(message)
        public = self.token_endpoint_auth_method == "none"  # noqa: S105 - a method
        if public == bool(self.client_secret):
            message = f"client {self.client_id!r}: a secret goes with every auth method except 'none'"
            raise ValueError(message)
        if not self.redirect_uris:
            message = f"client {self.client_id!r} has no redirect_uris"
            raise ValueError(message)
        for uri in self.redirect_uris:
            _require_web_uri("redirect_uri", uri)
        for uri in self.post_logout_redirect_uris:
            _require_web_uri("post_logout_redirect_uri", uri)
        for uri in filter(None, (self.backchannel_logout_uri, self.frontchannel_logout_uri)):
            _require_web_uri("logout uri", uri)

    @property
    def display_name(self) -> str:
        """The name shown to the user on the sign-in page."""
        return self.client_name or self.client_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """A seeded user."""

    username: str
    sub: str
    name: str
    email: str
    roles: tuple[str, ...] = ("user",)
    password: str = field(default=DEMO_PASSWORD, repr=False)


DEMO_ACCOUNTS: Final = (
    Account(username="alice", sub="alice", name="Alice", email="alice@example.org"),
    Account(username="bob", sub="bob", name="Bob", email="bob@example.org"),
    Account(
        username="admin",
        sub="admin",
        name="Admin",
        email="admin@example.org",
        roles=("user", "admin"),
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lifetimes:
    """How long each artefact is accepted, in seconds."""

    code: int = 60
    access_token: int = 300
    id_token: int = 300
    refresh_token: int = 30 * 24 * 3600
    op_session: int = 12 * 3600
    logout_token: int = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class OpSettings:
    """Configuration of one embedded provider; raises `ValueError` when it cannot work.

    `issuer` is the exact issuer identifier (OIDC Discovery 3), without a path or a trailing slash.
    `demo_mode` offers one-click sign-in. `claims_in_id_token` repeats the userinfo claims in the ID token;
    it is off because the ID token travels in the logout URL. `logout_attempt_seconds` bounds one delivery
    of a logout token, `logout_wait_seconds` how long a user waits for all of them.
    """

    issuer: str
    clients: tuple[RegisteredClient, ...]
    accounts: tuple[Account, ...] = DEMO_ACCOUNTS
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    demo_mode: bool = True
    claims_in_id_token: bool = False
    logout_attempt_seconds: float = 3.0
    logout_retry_seconds: float = 0.2
    logout_wait_seconds: float = 2.0

    def __post_init__(self) -> None:
        parts = _split(self.issuer)
        if parts.scheme not in {"http", "https"} or not parts.hostname or self.issuer != origin_of(self.issuer):
            message = f"issuer {self.issuer!r} must look like http://127.0.0.1:9000 (no path, no trailing slash)"
            raise ValueError(message)
        for name, values in (
            ("client_id", [client.client_id for client in self.clients]),
            ("username", [account.username for account in self.accounts]),
            ("sub", [account.sub for account in self.accounts]),
        ):
            if len(set(values)) != len(values):
                message = f"{name} must be unique, got {values!r}"
                raise ValueError(message)
