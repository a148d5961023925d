"""Parses the authorization response: bounded, each parameter once. Validates no login."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl

from session_core.errors import AuthorizationResponseError, OidcError
from session_core.ids import SecretStruct
from session_core.oidc.strict_json import parse_object

__all__ = (
    "AuthorizationResponse",
    "check_code",
    "read_authorization_response",
    "single_params",
)

_MAX_BYTES: Final = 16_384
_MAX_FIELDS: Final = 50
_MAX_CODE: Final = 4096
_MAX_USER: Final = 1024
_ERRORS: Final = frozenset(
    {
        "access_denied", "account_selection_required", "consent_required", "interaction_required", "invalid_request",
        "invalid_scope", "login_required", "server_error", "temporarily_unavailable", "unauthorized_client",
        "unmet_authentication_requirements", "unsupported_response_type",
    }
)  # fmt: skip
"""RFC 6749 4.1.2.1, OpenID Connect Core 3.1.2.6; other codes are not repeated, because they are untrusted text."""


class AuthorizationResponse(SecretStruct, frozen=True, kw_only=True):
    """An authorization response (RFC 6749 4.1.2, RFC 9207), not yet validated.

    `error` is a known error code, or `provider_error`; the provider's description is dropped.
    """

    state: str
    code: str | None
    issuer: str | None
    error: str | None
    user: str | None = None
    """Posted by Apple at a first login: unsigned JSON of at most 1024 bytes."""

    def posted_user(self) -> dict[str, Any] | None:
        """Return `user` as an object, or None if it is missing or malformed."""
        try:
            return None if self.user is None else parse_object(self.user.encode())
        except ValueError:
            return None


def read_authorization_response(encoded: bytes) -> AuthorizationResponse:
    """Parse the parameters of a callback, from its query or form. Raises `AuthorizationResponseError`."""
    params = single_params(encoded, AuthorizationResponseError)
    state = params.get("state")
    if not state:
        raise AuthorizationResponseError("state_missing")
    error = params.get("error") or None  # some providers send it without a value beside a code
    if error is not None:
        error = error if error in _ERRORS else "provider_error"
    user = params.get("user")
    if user is not None and len(user.encode()) > _MAX_USER:
        user = None
    return AuthorizationResponse(state=state, code=params.get("code"), issuer=params.get("iss"), error=error, user=user)


def check_code(code: str | None) -> str:
    """Return the code. Raises `AuthorizationResponseError` unless it is printable ASCII (RFC 6749 A.11)."""
    if not code or len(code) > _MAX_CODE or not code.isascii() or not code.isprintable():
        raise AuthorizationResponseError("code_malformed")
    return code


def single_params(
    query: bytes, error: type[OidcError], *, only: frozenset[str] | None = None, max_bytes: int = _MAX_BYTES
) -> dict[str, str]:
    """Return form-encoded parameters, all of them or those named in `only`.

    A repeated parameter is refused (RFC 6749 3.1): another parser might use the other value. Raises `error`.
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
