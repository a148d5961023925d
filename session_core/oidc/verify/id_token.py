"""Validates ID tokens (OpenID Connect Core 3.1.3.7). Independent of HTTP and sessions.

The expected values are passed in as one object; none is taken from the token itself.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from typing import Any, Final

from session_core.errors import IdTokenError
from session_core.identity import Identity
from session_core.ids import SecretStruct
from session_core.oidc.verify.claims import (
    ExpectedToken,
    check_audience,
    check_issuer,
    check_times,
    check_type,
    number,
    optional_number,
    optional_sid,
    optional_text,
    subject_of,
    text,
)
from session_core.oidc.verify.jws import Jws, parse_jws
from session_core.oidc.verify.keys import KeyCache

__all__ = ("ExpectedIdToken", "ValidIdToken", "validate_id_token")

_MAX_AGE_SECONDS: Final = 3600
"""The oldest `iat` of a token that the provider has just sent: more than any clock difference."""
_MAX_METHODS: Final = 32
_ROUNDING_SECONDS: Final = 2
"""Providers round to whole seconds."""
_HASHES: Final = {"256": hashlib.sha256, "384": hashlib.sha384, "512": hashlib.sha512}


class ExpectedIdToken(ExpectedToken, frozen=True, kw_only=True):
    """The expected values of a login's ID token.

    `nonce` is None for a refreshed token, which has none (OpenID Connect Core 12.2), and if the configuration disables it.
    """

    nonce: str | None
    access_token: str
    max_age: int | None = None
    acr_values: tuple[str, ...] = ()
    authenticated_within: float | None = None
    """The user must have authenticated at most this many seconds before the token was issued. Both times are by the provider's
    clock, so clock differences do not matter; the seconds are measured here from the start of the login to now."""
    subject_claim: str
    timeless: bool = False
    """Skip the time checks: only the identity is needed, and the token is not kept."""


class ValidIdToken(SecretStruct, frozen=True):
    """A validated token: the identity and all claims."""

    identity: Identity
    claims: dict[str, Any]


async def validate_id_token(token: object, expected: ExpectedIdToken, keys: KeyCache) -> ValidIdToken:
    """Return the validated token.

    Raises `IdTokenError` with the reason, or `DiscoveryError` when the provider's keys are unavailable.
    """
    jws = parse_jws(token, algorithms=expected.algorithms, error=IdTokenError)
    # An access token or logout token of the same provider has the same issuer and may have the same audience.
    check_type(jws.typ, "jwt", required=False, error=IdTokenError)
    claims = jws.claims
    issuer = expected.issuer_of(claims)
    refusal = await keys.refusal(jws, expected.jwks_uri, source="id_token", issuer=issuer if expected.several_issuers else None)
    if refusal is not None:
        raise IdTokenError(refusal)
    if "events" in claims:
        raise IdTokenError("events_claim")
    issuer = check_issuer(claims, issuer, IdTokenError)
    check_audience(claims, expected.client_id, IdTokenError)
    if not expected.timeless:
        check_times(claims, now=expected.now, max_age=_MAX_AGE_SECONDS, error=IdTokenError, skew=expected.skew)
    _check_nonce(claims, expected.nonce)
    _check_access_token_hash(jws, expected.access_token)
    return ValidIdToken(_identity(claims, expected, issuer), claims)


def _check_nonce(claims: dict[str, Any], expected: str | None) -> None:
    given = claims.get("nonce")
    if expected is None:
        return
    if not isinstance(given, str):
        raise IdTokenError("nonce_missing")
    if not hmac.compare_digest(given.encode(), expected.encode()):
        raise IdTokenError("nonce_mismatch")


def _check_access_token_hash(jws: Jws, access_token: str) -> None:
    """Check `at_hash` where it is given (OpenID Connect Core 3.1.3.8): the access token belongs to this ID token."""
    given = jws.claims.get("at_hash")
    if not isinstance(given, str) or not given:
        return
    # Ed25519 uses SHA-512 (RFC 8032); the other algorithms have the hash in their name.
    digest = _HASHES.get(jws.alg[-3:], hashlib.sha512)(access_token.encode()).digest()
    half = urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=")
    if not hmac.compare_digest(given.encode(), half):
        raise IdTokenError("at_hash_mismatch")


def _identity(claims: dict[str, Any], expected: ExpectedIdToken, issuer: str) -> Identity:
    subject = text(claims, "sub", IdTokenError)
    if expected.subject_claim != "sub":
        subject = subject_of(claims, expected.subject_claim)
    acr, auth_time = optional_text(claims.get("acr")), optional_number(claims, "auth_time")
    if auth_time is not None and auth_time > expected.now + expected.skew and not expected.timeless:
        raise IdTokenError("auth_time_in_future")
    if expected.max_age is not None:
        # A recent login was requested: `auth_time` is required and must be recent (Core 3.1.3.7, 13).
        if auth_time is None:
            raise IdTokenError("auth_time_missing")
        if expected.now - auth_time > expected.max_age + expected.skew:
            raise IdTokenError("auth_time_too_old")
    if expected.authenticated_within is not None:
        if auth_time is None:
            raise IdTokenError("auth_time_missing")
        if number(claims, "iat", IdTokenError) - auth_time > expected.authenticated_within + _ROUNDING_SECONDS:
            raise IdTokenError("auth_time_too_old")
    if expected.acr_values and acr not in expected.acr_values:
        raise IdTokenError("acr_not_met")
    return Identity(
        issuer=issuer,
        subject=subject,
        sid=optional_sid(claims.get("sid")),
        # Without `auth_time` do not assume now: silent single sign-on proves no recent login.
        auth_time=None if auth_time is None else int(auth_time),
        acr=acr,
        amr=_methods(claims),
    )


def _methods(claims: dict[str, Any]) -> tuple[str, ...]:
    given = claims.get("amr")
    if not isinstance(given, list) or len(given) > _MAX_METHODS:
        return ()
    known = tuple(method for each in given if (method := optional_text(each)) is not None)
    # All or none: a partial list has another meaning.
    return known if len(known) == len(given) else ()
