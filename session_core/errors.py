"""The one error tree of the library, with stable codes and their HTTP meaning.

    SessionCoreError
    ├── ConfigurationError                 a setting is invalid; raised at start, never per request
    ├── ResponseStartedError               a new session id is needed, but its cookie can no longer be sent
    ├── SessionDataError                   the application put a value of the wrong type into the session
    ├── AccessDeniedError
    │   ├── LoginRequiredError             401: no user is logged in
    │   │   └── InvalidTokenError          401: the bearer token opens no session
    │   ├── AmbiguousCredentialsError      400: a bearer token, and a cookie or another token
    │   ├── StepUpRequiredError            401: logged in, but not recently or strongly enough
    │   ├── ForbiddenError                 403: logged in, not allowed
    │   │   └── ImpersonationForbiddenError  403: an administrator acts as the user
    │   ├── CrossSiteRequestError          403: a state-changing request came from another origin
    │   │   └── PlainHttpRequestError      403: from a page of this site, opened over plain http
    │   └── TooManyRequestsError           429: this client sent too many of these
    ├── StoreError
    │   ├── StoreUnavailableError          503: the store did not answer in time
    │   ├── SessionGoneError               401: the session ended while the request was in flight
    │   └── SessionConflictError           409: another request changed the same field meanwhile
    └── OidcError
        ├── DiscoveryError                 503: the provider's metadata or keys are unavailable or untrusted
        ├── AuthorizationResponseError     400: the callback does not belong to a login started here
        │   ├── LoginExpiredError          400: the login took too long, or is already finished
        │   ├── UnknownLoginError          400: the browser has no such login
        │   └── LoginCancelledError        400: the user cancelled at the provider
        ├── TokenExchangeError             502: the token or userinfo endpoint failed
        ├── IdTokenError                   400: an ID token failed validation
        ├── NativeLoginError               400: the request of a native client is invalid
        ├── LoginRefusedError              403: the application refuses this user
        └── LogoutTokenError               400: a logout token failed validation

Messages never contain an id, a token, a cookie or anything else a client sent. A bad cookie is no error at
all: the visitor is anonymous and an event says why.

Codes of the JavaScript original: `COOKIE_ERROR` is the event `cookie.rejected`, `INVALID_SESSION` and
`EXPIRED_SESSION` are `session_gone`, `CRYPTO_ERROR` is `configuration`, `STORAGE_ERROR` is `store_unavailable`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

__all__ = (
    "AccessDeniedError",
    "AmbiguousCredentialsError",
    "AuthorizationResponseError",
    "ConfigurationError",
    "CrossSiteRequestError",
    "DiscoveryError",
    "ForbiddenError",
    "IdTokenError",
    "ImpersonationForbiddenError",
    "InvalidTokenError",
    "LoginCancelledError",
    "LoginExpiredError",
    "LoginRefusedError",
    "LoginRequiredError",
    "LogoutTokenError",
    "NativeLoginError",
    "OidcError",
    "PlainHttpRequestError",
    "ResponseStartedError",
    "SessionConflictError",
    "SessionCoreError",
    "SessionDataError",
    "SessionGoneError",
    "SessionLimitError",
    "StepUpRequiredError",
    "StoreError",
    "StoreUnavailableError",
    "TokenExchangeError",
    "TooManyRequestsError",
    "UnknownLoginError",
    "UpstreamError",
    "UpstreamTimeoutError",
)


class SessionCoreError(Exception):
    """Root of every error this library raises.

    `code` is stable and may be matched by clients; `status_code` is what the plugin answers over HTTP; `title` is
    the only text a client sees. `return_to` and `provider` are, of a failed login, the local path that it would have led to and
    the id of its provider, where known: "try again" keeps both.
    """

    code: ClassVar[str] = "session_core"
    status_code: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    return_to: str | None = None
    provider: str | None = None


class ConfigurationError(SessionCoreError):
    """A setting is missing, malformed or not allowed where it is used.

    `option` is the name of the option whose value is refused, if it is one; the message then begins with it.
    """

    code = "configuration"

    def __init__(self, *args: object, option: str | None = None) -> None:
        super().__init__(*args)
        self.option = option


def check_choices(kind: type[Any], options: object) -> None:
    """Raise `ConfigurationError` unless each option that `kind` declares as a `Literal` has one of its values.

    A misspelt one must not mean the default.
    """
    for name, hint in get_type_hints(kind).items():
        choices = get_args(hint)
        if get_origin(hint) is Literal and getattr(options, name) not in choices:
            *others, last = map(repr, choices)
            msg = f"{name} must be {', '.join(others)} or {last}"
            raise ConfigurationError(msg, option=name)


class ResponseStartedError(SessionCoreError):
    """The session would need a new cookie, and the response cannot carry one: it has started, or it is a WebSocket's.

    Nothing was changed.
    """

    code = "response_started"


class SessionDataError(SessionCoreError):
    """The session data does not match its declared type or size limit; nothing was saved.

    `fields` are the names of the invalid fields, if known.
    """

    code = "session_data"
    title = "The session data is invalid"

    def __init__(self, *args: object, fields: tuple[str, ...] = ()) -> None:
        super().__init__(*args)
        self.fields = fields


class AccessDeniedError(SessionCoreError):
    """The request is understood and refused."""

    code = "access_denied"
    status_code = 403
    title = "Access denied"


class LoginRequiredError(AccessDeniedError):
    """No user is logged in; a browser is sent to the login, an API client gets 401."""

    code = "login_required"
    status_code = 401
    title = "Login required"


class InvalidTokenError(LoginRequiredError):
    """The request presents a bearer token that opens no session: malformed, forged, ended or expired (RFC 6750 3.1)."""

    code = "invalid_token"
    title = "The token is invalid or has expired"


class AmbiguousCredentialsError(AccessDeniedError):
    """The request presents a session in more than one way, or in a way that does not fit the address (RFC 6750 3.1)."""

    code = "invalid_request"
    status_code = 400
    title = "Send either the session cookie or one bearer token in the Authorization header"


class StepUpRequiredError(AccessDeniedError):
    """A user is logged in, but the login is too old or too weak for this route.

    `max_age` is in seconds (OpenID Connect Core 3.1.2.1), `acr_values` the accepted classes in order of preference.
    """

    code = "step_up_required"
    status_code = 401
    title = "A fresh login is required"

    def __init__(self, *, max_age: int | None = None, acr_values: tuple[str, ...] = ()) -> None:
        super().__init__("a more recent or stronger login is required")
        self.max_age = max_age
        self.acr_values = acr_values


class ForbiddenError(AccessDeniedError):
    """Logged in, but refused by a guard. `roles`: one of them would have been needed, where that was the rule."""

    code = "forbidden"
    title = "You are not allowed to do this"

    def __init__(self, *args: object, roles: tuple[str, ...] = ()) -> None:
        super().__init__(*args)
        self.roles = roles


class ImpersonationForbiddenError(ForbiddenError):
    """An administrator acts as the user, and this is for the user alone."""

    code = "impersonation_forbidden"
    title = "This is not possible while you act as another user"


class CrossSiteRequestError(AccessDeniedError):
    """A state-changing request was sent by a page of another origin."""

    code = "cross_site_request"
    title = "Cross-site request refused"


class PlainHttpRequestError(CrossSiteRequestError):
    """A page of this site sent the request, but it was opened over plain http although the public URL is https."""

    title = "This site was opened over plain http, please open its https address"


class SessionLimitError(AccessDeniedError):
    """The user has as many sessions as allowed, and `on_limit="refuse"`: the login did not happen."""

    code = "session_limit"
    status_code = 403
    title = "You are logged in on as many devices as allowed: log out on one of them first"

    def __init__(self) -> None:
        super().__init__("the user has as many sessions as allowed")


class TooManyRequestsError(AccessDeniedError):
    """One client exceeded a rate limit. `retry_after` is in seconds."""

    code = "too_many_requests"
    status_code = 429
    title = "Too many requests, please wait a moment"

    def __init__(self, retry_after: int) -> None:
        super().__init__("the client exceeded a rate limit")
        self.retry_after = retry_after


class UpstreamError(SessionCoreError):
    """A request could not be forwarded: the API did not answer, or answered with a redirect."""

    code = "upstream"
    status_code = 502
    title = "The upstream service does not answer"


class UpstreamTimeoutError(UpstreamError):
    """The API did not answer in time."""

    code = "upstream_timeout"
    status_code = 504


class StoreError(SessionCoreError):
    """Root of errors about the stored session."""

    code = "store"


class StoreUnavailableError(StoreError):
    """The store did not answer. The session is not ended by this.

    `not_applied`: the step has changed nothing and never will. Otherwise it may have been made, and only the answer is missing.
    `kind` is the class and code of the driver's error, if known: for the log, without its message, which quotes values.
    """

    code = "store_unavailable"
    status_code = 503
    title = "The session store is unavailable, please try again shortly"

    def __init__(self, *args: object, not_applied: bool = False, kind: str = "") -> None:
        super().__init__(*args)
        self.not_applied = not_applied
        self.kind = kind


class SessionGoneError(StoreError):
    """The session was destroyed, revoked, regenerated or expired; the write was not made.

    `revoked`: set for a login, which is refused because the browser's session was revoked after the login began.
    """

    code = "session_gone"
    status_code = 401
    title = "The session has ended"
    revoked: bool = False


class SessionConflictError(StoreError):
    """Another request changed the same field first; the write was not made.

    `fields` are the names of the fields in conflict (empty when raised by a store, which sees only versions).
    """

    code = "session_conflict"
    status_code = 409
    title = "The session was changed by another request"

    def __init__(self, *args: object, fields: tuple[str, ...] = ()) -> None:
        super().__init__(*args)
        self.fields = fields


class OidcError(SessionCoreError):
    """A login or logout over OpenID Connect failed. `reason` is a short stable slug for logs and metrics."""

    code = "oidc"
    status_code = 400
    title = "The login could not be completed"

    def __init__(self, reason: str, *, return_to: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.return_to = return_to


class DiscoveryError(OidcError):
    """The provider's metadata or keys are unreachable, malformed or not trustworthy."""

    code = "discovery"
    status_code = 503
    title = "The identity provider is unavailable"


class AuthorizationResponseError(OidcError):
    """The authorization response does not belong to a login that this browser started, or it is an error."""

    code = "authorization_response"


class LoginExpiredError(AuthorizationResponseError):
    """The login of the response was started by this browser, but took too long or is already finished."""

    title = "This login has expired"


class UnknownLoginError(AuthorizationResponseError):
    """The browser sent no cookie of the login with this `state`: an attack, another browser, or the cookie has gone."""

    title = "This login has expired, or was started in another browser"


class LoginCancelledError(AuthorizationResponseError):
    """The provider answered `access_denied` (RFC 6749 4.1.2.1): the user or the provider has refused."""

    title = "The login was cancelled at the identity provider"


class TokenExchangeError(OidcError):
    """The token or userinfo endpoint failed, timed out or answered outside the protocol."""

    code = "token_exchange"
    status_code = 502
    title = "The identity provider did not complete the login"


class IdTokenError(OidcError):
    """An ID token (or the userinfo that belongs to it) failed validation (OpenID Connect Core 3.1.3.7)."""

    code = "id_token"


class NativeLoginError(OidcError):
    """The request of a native client is unfit. `error` is the code that it gets (RFC 6749 4.1.2.1 and 5.2)."""

    code = "native_login"

    def __init__(self, reason: str, *, error: str = "invalid_request") -> None:
        super().__init__(reason)
        self.error = error


class LoginRefusedError(OidcError):
    """The application refuses this user; raised by `on_login` with its own reason for the log, for example `"not_invited"`."""

    code = "login_refused"
    status_code = 403
    title = "You are not allowed to log in here"


class LogoutTokenError(OidcError):
    """A logout token failed validation (OpenID Connect Back-Channel Logout 1.0, 2.6)."""

    code = "logout_token"
    title = "The logout token is invalid"
