"""Parses and validates one authorization request. Independent of users; sends nothing."""

# ruff: noqa: EM101, EM102 - the first argument of an AuthorizationError is a protocol constant, no message

from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, cast

from authlib.oauth2.rfc6749 import OAuth2Error  # type: ignore[import-untyped, unused-ignore]

from auth_demo.op.protocol.authorization_server import OAuthServer, ProtocolRequest
from auth_demo.op.settings import RegisteredClient
from auth_demo.op.web.parameters import Parameters

__all__ = (
    "PROMPTS",
    "RESPONSE_MODES",
    "AuthorizationError",
    "AuthorizationRequest",
    "ReplyAddress",
    "find_reply_address",
    "read_authorization_request",
)

ResponseMode: TypeAlias = Literal["query", "form_post"]
RESPONSE_MODES: Final[tuple[ResponseMode, ...]] = ("query", "form_post")
PROMPTS: Final = ("none", "login", "consent", "select_account")
_MAX_AGE_DIGITS: Final = 9
_MAX_NONCE: Final = 512


class AuthorizationError(Exception):
    """An error response of RFC 6749 4.1.2.1 or OIDC Core 3.1.2.6; the description is fixed text, never input."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(f"{code}: {description}")
        self.code = code
        self.description = description


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyAddress:
    """Where responses to a request may go: a registered redirect URI of a known client."""

    client: RegisteredClient
    redirect_uri: str
    response_mode: ResponseMode
    state: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRequest:
    """A valid authorization request (RFC 6749 4.1.1, OIDC Core 3.1.2.1)."""

    reply_to: ReplyAddress
    scope: str
    code_challenge: str = field(repr=False)
    nonce: str | None = field(default=None, repr=False)
    prompts: frozenset[str] = frozenset()
    max_age: int | None = None
    login_hint: str | None = None
    hinted_sub: str | None = None
    acr_values: tuple[str, ...] = ()


def find_reply_address(server: OAuthServer, parameters: Parameters) -> ReplyAddress | None:
    """Return where the answer may go, or ``None`` when client and redirect URI are not both right.

    Without it the error is shown on our own page: an open redirector would deliver codes to any site
    (RFC 6749 4.1.2.1, RFC 9700 4.11).
    """
    client = server.query_client(parameters.get("client_id") or "")
    redirect_uri = parameters.get("redirect_uri")
    if client is None or redirect_uri is None or not client.check_redirect_uri(redirect_uri):
        return None
    mode = parameters.get("response_mode")
    return ReplyAddress(
        client=client.registered,
        redirect_uri=redirect_uri,
        response_mode="form_post" if mode == "form_post" else "query",
        state=parameters.get("state"),
    )


def read_authorization_request(server: OAuthServer, parameters: Parameters, reply_to: ReplyAddress) -> AuthorizationRequest:
    """Return the request if it is one we serve, else raise `AuthorizationError` to be sent to `reply_to`."""
    _refuse_unsupported(parameters)
    scope = _authlib_scope(server, parameters)
    nonce = parameters.get("nonce")
    if nonce is not None and len(nonce) > _MAX_NONCE:
        raise AuthorizationError("invalid_request", "nonce is too long.")
    return AuthorizationRequest(
        reply_to=reply_to,
        scope=scope,
        code_challenge=parameters.values["code_challenge"],
        nonce=nonce,
        prompts=_read_prompts(parameters.get("prompt")),
        max_age=_read_max_age(parameters.get("max_age")),
        login_hint=parameters.get("login_hint"),
        hinted_sub=_read_hint(server, parameters.get("id_token_hint"), reply_to.client.client_id),
        acr_values=tuple((parameters.get("acr_values") or "").split()),
    )


def _refuse_unsupported(parameters: Parameters) -> None:
    if parameters.repeated:
        raise AuthorizationError("invalid_request", "A parameter was sent more than once.")
    for name in ("request", "request_uri", "registration"):
        if parameters.get(name) is not None:
            raise AuthorizationError(f"{name}_not_supported", f"The {name} parameter is not supported.")
    mode = parameters.get("response_mode")
    if mode is not None and mode not in RESPONSE_MODES:
        raise AuthorizationError("invalid_request", "response_mode must be query or form_post.")
    # Before Authlib sees it: its error for other types fails on characters it may not repeat.
    response_type = parameters.get("response_type")
    if response_type is None:
        raise AuthorizationError("invalid_request", "response_type is missing.")
    if response_type != "code":
        raise AuthorizationError("unsupported_response_type", "Only response_type=code is supported.")


def _authlib_scope(server: OAuthServer, parameters: Parameters) -> str:
    """Let Authlib validate client, response type, scope and PKCE; return the granted scope."""
    request = ProtocolRequest("GET", f"{server.settings.issuer}/authorize", parameters.values)
    try:
        grant: Any = server.get_authorization_grant(request)
        grant.validate_authorization_request()
    except OAuth2Error as error:
        described: Any = error
        raise AuthorizationError(str(described.error), str(described.description or "")) from None
    return cast("str", request.scope)


def _read_prompts(value: str | None) -> frozenset[str]:
    prompts = frozenset((value or "").split())
    if not prompts <= set(PROMPTS):
        raise AuthorizationError("invalid_request", "prompt has an unsupported value.")
    if "none" in prompts and len(prompts) > 1:
        raise AuthorizationError("invalid_request", "prompt=none goes with no other value.")
    return prompts


def _read_max_age(value: str | None) -> int | None:
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= _MAX_AGE_DIGITS):
        raise AuthorizationError("invalid_request", "max_age must be a number of seconds.")
    return int(value)


def _read_hint(server: OAuthServer, value: str | None, client_id: str) -> str | None:
    if value is None:
        return None
    claims = server.id_tokens.read_hint(value)
    if claims is None or claims["aud"] != client_id:
        raise AuthorizationError("invalid_request", "id_token_hint is no ID token of this client.")
    return cast("str", claims["sub"])
