"""Everything that can be configured about sessions, checked when it is built."""

from __future__ import annotations

import inspect
import secrets as random
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

import msgspec

from session_core.calls import CallObserver
from session_core.clock import Clock, SystemClock
from session_core.cookies import CookieConfig, CookieSigner
from session_core.errors import ConfigurationError, check_choices
from session_core.events import EventListener, Events
from session_core.identity import Identity
from session_core.impersonation import Impersonation
from session_core.sessions.handle import SessionHandle
from session_core.sessions.login_limits import LoginLimits, UserLimit
from session_core.sessions.record import DataCodec, Device
from session_core.sessions.timeouts import Timeouts
from session_core.stores import SessionStore, open_store
from session_core.trusted_origins import OriginRule, TrustedOrigins
from session_core.urls import base_url_of

__all__ = ("SessionConfig",)

D = TypeVar("D", bound=msgspec.Struct)
_MOST_SESSIONS_PER_USER: Final = 1000

RoleResolver: TypeAlias = Callable[[SessionHandle[Any]], Collection[str] | Awaitable[Collection[str]]]
UserLoader: TypeAlias = Callable[[Identity, Any], Any]
DeviceReader: TypeAlias = Callable[[Any], Device]
"""Called with the framework's own request or WebSocket object."""


def _roles_in_data(session: SessionHandle[Any]) -> Collection[str]:
    roles: Collection[str] = getattr(session.data, "roles", ())
    return roles


@dataclass
class SessionConfig(Generic[D]):
    """How an application keeps its sessions.

    Raises `ConfigurationError` when built with a value that cannot work.
    """

    data_type: type[D]
    """The struct that holds the session's data; every field needs a default."""
    store: str | SessionStore = "memory://"
    """Where sessions are kept: a URL for `open_store`, or a store."""
    secrets: Sequence[str | bytes] = ()
    """Cookie signing secrets, each of 32 bytes or more: the first signs, all verify. When empty, a random secret is generated and
    logged as a weakness: sessions end with this process, and no second worker can verify them."""
    public_url: str = "http://localhost:8000"
    """Scheme, host, port and path under which browsers reach the application. Decides whether the cookie is Secure and which
    origin may send state-changing requests; the Host and X-Forwarded-* headers never do."""
    cookie: CookieConfig = field(default_factory=CookieConfig)
    """Name and attributes of the session cookie."""
    bearer: bool = False
    """Whether native clients may present a session by `Authorization: Bearer` in place of the cookie (RFC 6750). Every such
    header is then taken for a session's."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    """Idle and absolute timeout, and the touch interval."""
    accept_weak_store: bool = False
    """Accept a store that cannot keep all promises: OpenID Connect logins on a store without atomic claims, sessions on an
    eventually consistent store. Each lost promise is logged at start (`store.weak`)."""
    max_sessions_per_user: UserLimit = 0
    """A login above this number ends the user's oldest session. A function of the identity, which may be async, sets a limit per
    user. 0 means the library's limit of 1,000, so that one user cannot fill the store; set a higher number for a service account
    that needs more. A store that is not atomic keeps no limit."""
    on_limit: Literal["evict", "refuse"] = "evict"
    """What a login above `max_sessions_per_user` does: it ends the oldest session, or it is refused with `SessionLimitError`
    until the user logs out elsewhere. Exact with any number of concurrent logins."""
    new_device_events: bool = False
    """Whether a login emits `login.new_device` when no live session of the user has the same user agent; lists the user's
    sessions at each login."""
    max_anonymous_per_client: int = 0
    """How many sessions without a login one client address may begin within an hour; 429 above that. 0 means no limit. Needs
    `device` behind a proxy: without it all clients of the proxy count as one."""
    exempt_clients: Sequence[str] = ()
    """Networks without limits: of a monitor, of a provider that sends many logout tokens, of an office."""
    on_conflict: Literal["refuse", "last_write_wins"] = "refuse"
    """What happens when two requests assign different values to the same field: the later one gets 409, or overwrites."""
    default_factory: Callable[[], D] | None = None
    """Makes the data of a new session; the data type itself when None."""
    max_data_bytes: int = 65536
    """The largest encoded data that is stored."""
    store_timeout: float = 2.0
    """Seconds within which the store must answer; 503 after that."""
    sweep_interval: float = 300.0
    """Seconds between removals of expired records, for stores without native expiry; 0 switches the sweeper off."""
    close_connections: Literal["push", "poll", "never"] = "push"
    """How open WebSockets and streaming responses are closed when their session ends: by announcements of the store (Redis,
    PostgreSQL; other stores are polled), by polling alone, or never."""
    poll_interval: float = 0.5
    """Seconds between polls for the sessions of open connections on stores without announcements, and after which a silent
    channel is probed. A connection is closed within about this time; above 0.5 it may take longer than a second. A response
    that starts later than this after its session was read reads the store again, and is 401 if the session has ended; not with
    `close_connections="never"`."""
    on_event: Sequence[EventListener] = ()
    """Called with every event, in the request it belongs to."""
    observers: Sequence[CallObserver] = ()
    """Observers of each call to the store and to the providers, for latencies and traces."""
    roles: RoleResolver = _roles_in_data
    """The roles of the logged-in user, for `requires_role`; by default the field `roles` of the data. May be async; called in
    every guarded request, so a revoked role is effective at once."""
    is_active: Callable[[Identity], bool | Awaitable[bool]] | None = None
    """Whether a logged-in user is still active; called by every guard. A disabled user is refused at the next request."""
    impersonation: Impersonation | None = None
    """Lets administrators act as other users by `session.impersonate`; None: never."""
    load_user: UserLoader | None = None
    """Returns the application's user for an identity, or None if it is unknown; gets the identity and the connection, and may be
    async. `request.user` is then this user and `request.auth` the identity, both None for a visitor: loaded once per request, and
    again after a login in the handler. The guards refuse an identity without a user. On routes that take the connection or have
    guards."""
    request_session: str | None = None
    """For code written for Litestar's own sessions: the name of a field of type `dict[str, Any]`. `request.session` is then a
    dict of the fields that were set and of this field's items, and each changed key is saved on its own. On routes
    that take the connection or have guards."""
    device: DeviceReader | None = None
    """Where a client comes from; by default its address as the server sees it, and its User-Agent."""
    login_path: str = "/auth/login"
    """Where browsers are sent to log in: a path of the application, or a URL. Gets `next`, and `max_age` or `acr_values` for a
    step-up."""
    trusted_origins: Sequence[str | OriginRule] | OriginRule = ()
    """Other origins that may send state-changing requests: `https://admin.example.org`, every host below a domain
    (`https://*.example.org`), a native application (`capacitor://localhost`), or a function that gets the origin and returns
    True for one that may."""
    middleware_on: Literal["session_routes", "all_routes"] = "session_routes"
    """Where the middleware runs: on routes that use the session (by parameter, by guards, or with `opt={"session": True}`),
    or on all."""
    clock: Clock = field(default_factory=SystemClock)
    """The source of time."""

    def __post_init__(self) -> None:
        """Check what can be checked without a request."""
        self.trusted = TrustedOrigins(self.trusted_origins)
        """`trusted_origins`, checked."""
        self.base = base_url_of(self.public_url)
        """Origin and path of our own pages."""
        check_choices(SessionConfig, self)
        if isinstance(self.max_sessions_per_user, int) and self.max_sessions_per_user < 0:
            msg = "max_sessions_per_user must be 0 (the library's limit) or more, for example 5"
            raise ConfigurationError(msg)
        if self.max_anonymous_per_client < 0:
            msg = "max_anonymous_per_client must be 0 (no limit) or more, for example 1000"
            raise ConfigurationError(msg)
        try:
            self.exempt_networks = tuple(ip_network(network) for network in self.exempt_clients)
        except ValueError:
            msg = 'exempt_clients must be addresses or networks, for example ["192.0.2.0/24"]'
            raise ConfigurationError(msg) from None
        if self.store_timeout <= 0:
            msg = "store_timeout must be positive seconds, for example 2.0"
            raise ConfigurationError(msg)
        if self.poll_interval <= 0:
            msg = "poll_interval must be positive seconds, for example 0.5"
            raise ConfigurationError(msg)
        self._check_request_session()
        self.secrets_generated = not self.secrets
        """Whether the secret lives only as long as this process."""
        secrets = self.secrets or (random.token_urlsafe(32),)
        self.signer = CookieSigner(secrets)
        # Separate keys, derived from a name that no cookie can have, so that cookies and tokens are not interchangeable.
        self.token_signer = CookieSigner.for_cookie("bearer token", secrets) if self.bearer else None
        self.codec = DataCodec(
            self.data_type,
            self.default_factory,
            max_bytes=self.max_data_bytes,
            refuse_conflicts=self.on_conflict == "refuse",
        )
        self.resolved_cookie = self.cookie.resolve(self.public_url)

    def _check_request_session(self) -> None:
        name = self.request_session
        if name is not None and not isinstance(getattr(self.data_type(), name, None), dict):
            msg = (
                f"request_session={name!r} must name a field of {self.data_type.__name__} that holds a dict, for example "
                "`other: dict[str, Any] = {}`"
            )
            raise ConfigurationError(msg)

    def __repr__(self) -> str:
        # The generated one would print secrets and the store's password.
        return f"SessionConfig({self.data_type.__name__}, cookie={self.resolved_cookie.name!r})"

    async def lets_act(self, identity: Identity) -> bool:
        """Whether a logged-in user may still act. Exactly True of `is_active`: a mistake there must not let every user in."""
        if self.is_active is None:
            return True
        answer = self.is_active(identity)
        return (await answer if inspect.isawaitable(answer) else answer) is True

    async def may_impersonate(self, actor: Identity, user: Identity) -> bool:
        """Whether an administrator may act as a user now; both must be active."""
        if self.impersonation is None or actor.is_same_user(user):
            return False
        if not await self.lets_act(actor) or not await self.lets_act(user):
            return False
        answer = self.impersonation.allow(actor, user)
        return (await answer if inspect.isawaitable(answer) else answer) is True

    def login_limits(self, store: SessionStore, events: Events) -> LoginLimits:
        """Return the limit of sessions per user; a store that is not atomic has none."""
        return LoginLimits(
            store,
            self.clock,
            events,
            self.max_sessions_per_user,
            most=_MOST_SESSIONS_PER_USER if store.capabilities.atomic else 0,
            on_limit=self.on_limit,
            new_device_events=self.new_device_events,
            patience=self.store_timeout,
        )

    def make_store(self) -> SessionStore:
        """Return the configured store, opened by URL when it is one (not yet connected)."""
        return open_store(self.store, clock=self.clock) if isinstance(self.store, str) else self.store
