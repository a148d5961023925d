"""Reads what a browser brings to the login's start and to the callback: bounded, each parameter once; decides nothing."""

# ruff: noqa: EM101 - what an OidcError is given is a reason slug, not a message
from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

import msgspec

from session_core.errors import AuthorizationResponseError
from session_core.oidc.secret_struct import SecretStruct

if TYPE_CHECKING:
    from session_core.errors import OidcError

__all__ = (
    "AuthorizationResponse",
    "LoginRequest",
    "check_code",
    "read_authorization_response",
    "read_login_request",
    "single_params",
)

_MAX_BYTES: Final = 16_384
_MAX_FIELDS: Final = 50
_MAX_CODE: Final = 4096
_MAX_HINT: Final = 256
_MAX_ACR: Final = 512
_MAX_AGE_DIGITS: Final = 9
_PROMPTS: Final = frozenset({"none", "login", "consent", "select_account"})
_LOGIN_PARAMS: Final = frozenset({"next", "max_age", "acr_values", "prompt", "login_hint", "iss", "target_link_uri"})
_ERRORS: Final = frozenset(
    {
        "access_denied", "account_selection_required", "consent_required", "interaction_required", "invalid_request",
        "invalid_scope", "login_required", "server_error", "temporarily_unavailable", "unauthorized_client",
        "unmet_authentication_requirements", "unsupported_response_type",
    }
)  # fmt: skip
"""RFC 6749 4.1.2.1, OpenID Connect Core 3.1.2.6; any other code is not repeated: it is text from outside."""


class AuthorizationResponse(SecretStruct, frozen=True, kw_only=True):
    """An authorization response (RFC 6749 4.1.2, RFC 9207); who sent it is not known yet.

    `error` is a known error code, or `provider_error`; what the provider wrote about it is dropped.
    """

    state: str
    code: str | None
    issuer: str | None
    error: str | None


class LoginRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody asks of a login. `next` and `target_link_uri` are not checked here.

    `issuer` and `target_link_uri` come with a login that a third party initiates (OpenID Connect Core 4).
    """

    next: str | None = None
    max_age: int | None = None
    acr_values: tuple[str, ...] = ()
    prompt: str | None = None
    login_hint: str | None = None
    issuer: str | None = None
    target_link_uri: str | None = None


def read_authorization_response(query: bytes) -> AuthorizationResponse:
    """Return the parameters of a callback. Raises `AuthorizationResponseError`."""
    params = single_params(query, AuthorizationResponseError)
    state = params.get("state")
    if not state:
        raise AuthorizationResponseError("state_missing")
    error = params.get("error")
    if error is not None:
        error = error if error in _ERRORS else "provider_error"
    return AuthorizationResponse(state=state, code=params.get("code"), issuer=params.get("iss"), error=error)


def check_code(code: str | None) -> str:
    """Return the code. Raises `AuthorizationResponseError` unless it is printable ASCII (RFC 6749 A.11)."""
    if not code or len(code) > _MAX_CODE or not code.isascii() or not code.isprintable():
        raise AuthorizationResponseError("code_malformed")
    return code


def read_login_request(query: bytes) -> LoginRequest:
    """Return the parameters of `GET /auth/login`. Raises `AuthorizationResponseError` (`login_parameter`).

    A wrong `max_age` is refused, not ignored: the login that follows would look as if it had been recent.
    """
    params = single_params(query, AuthorizationResponseError, only=_LOGIN_PARAMS)
    max_age, prompt, hint = params.get("max_age"), params.get("prompt"), params.get("login_hint")
    acr_values = params.get("acr_values", "")
    fit = (
        (max_age is None or (max_age.isascii() and max_age.isdigit() and len(max_age) <= _MAX_AGE_DIGITS))
        and (prompt is None or prompt in _PROMPTS)
        and (hint is None or (0 < len(hint) <= _MAX_HINT and hint.isprintable()))
        and (len(acr_values) <= _MAX_ACR and acr_values.isascii() and acr_values.isprintable())
    )
    if not fit:
        raise AuthorizationResponseError("login_parameter")
    return LoginRequest(
        next=params.get("next"),
        max_age=None if max_age is None else int(max_age),
        acr_values=tuple(dict.fromkeys(acr_values.split())),
        prompt=prompt,
        login_hint=hint,
        issuer=params.get("iss"),
        target_link_uri=params.get("target_link_uri"),
    )


def single_params(
    query: bytes, error: type[OidcError], *, only: frozenset[str] | None = None, max_bytes: int = _MAX_BYTES
) -> dict[str, str]:
    """Return form-encoded parameters, all of them or those named in `only`.

    One that comes twice is refused (RFC 6749 3.1): the next reader might take the other. Raises `error`.
    """
    if len(query) > max_bytes:
        raise error("parameters_too_large")
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError:
        raise error("parameters_malformed") from None
    if only is not None:
        pairs = [(name, value) for name, value in pairs if name in only]
    params = dict(pairs)
    if len(params) != len(pairs):
        raise error("parameter_repeated")
    return params
