"""Validates logout tokens (Back-Channel Logout 1.0, 2.6); ends no sessions.

Any client can send one, so nothing is stored or fetched (except keys, within the cooldown) before the whole token is valid.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import msgspec

from session_core.errors import LogoutTokenError
from session_core.oidc.verify.claims import (
    MAX_SKEW_SECONDS,
    ExpectedToken,
    check_audience,
    check_issuer,
    check_times,
    check_type,
    optional_sid,
    optional_text,
    text,
)
from session_core.oidc.verify.jws import parse_jws
from session_core.oidc.verify.keys import KeyCache

__all__ = ("REPLAY_SECONDS", "ExpectedLogoutToken", "LogoutOrder", "validate_logout_token")

_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
_MAX_AGE_SECONDS: Final = 180
"""The oldest `iat`: the specification recommends an expiry of at most two minutes, and a delivery may be repeated."""
REPLAY_SECONDS: Final = _MAX_AGE_SECONDS + 2 * MAX_SKEW_SECONDS
"""How long a `jti` is remembered: as long as its token is valid, with the largest clock tolerance."""


class ExpectedLogoutToken(ExpectedToken, frozen=True, kw_only=True):
    """The expected values of a logout token."""

    typ_required: bool
    exp_required: bool


class LogoutOrder(msgspec.Struct, frozen=True):
    """The content of a valid logout token: end the OP session `sid` or, without one, all sessions of `subject`.

    `iat` is when the provider issued it, in Unix seconds by its own clock. `replay_key` is a digest of issuer and `jti`.
    """

    issuer: str
    sid: str | None
    subject: str | None
    iat: int
    replay_key: str


async def validate_logout_token(token: object, expected: ExpectedLogoutToken, keys: KeyCache) -> LogoutOrder:
    """Return the order in a logout token.

    Raises `LogoutTokenError` with the reason, or `DiscoveryError` when the provider's keys are unavailable.
    """
    jws = parse_jws(token, algorithms=expected.algorithms, error=LogoutTokenError)
    # Explicit typing (2.4, RFC 8725 3.11): no other token of the provider can be used as a logout token.
    if expected.typ_required or (jws.typ or "JWT").upper() != "JWT":  # the generic type `JWT` counts as no type
        check_type(jws.typ, "logout+jwt", required=True, error=LogoutTokenError)
    claims = jws.claims
    # Claims first: an invalid token must not cause a fetch of keys.
    issuer = check_issuer(claims, expected.issuer_of(claims), LogoutTokenError)
    check_audience(claims, expected.client_id, LogoutTokenError)
    # Older providers send no `exp`: `iat` limits the token's age, and `jti` makes it single-use.
    iat = check_times(
        claims,
        now=expected.now,
        max_age=_MAX_AGE_SECONDS,
        error=LogoutTokenError,
        exp_required=expected.exp_required,
        skew=expected.skew,
    )
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(_EVENT), dict):
        raise LogoutTokenError("events_missing")
    if "nonce" in claims:
        # Forbidden, so that an ID token cannot be used as a logout token.
        raise LogoutTokenError("nonce_present")
    sid, subject = optional_sid(claims.get("sid")), optional_text(claims.get("sub"))
    if sid is None and subject is None:
        raise LogoutTokenError("sub_and_sid_missing")
    jti = text(claims, "jti", LogoutTokenError)
    refusal = await keys.refusal(
        jws, expected.jwks_uri, source="logout_token", issuer=issuer if expected.several_issuers else None
    )
    if refusal is not None:
        raise LogoutTokenError(refusal)
    digest = sha256(f"logout-token\0{issuer}\0{jti}".encode()).hexdigest()
    return LogoutOrder(issuer, sid, subject, iat, f"jti-{digest}")
