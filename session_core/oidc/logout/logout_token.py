"""Decides whether a logout token is the provider's order to end sessions (Back-Channel Logout 1.0, 2.6); ends none.

Any client can send one, so nothing is done, stored or fetched for a token (except its keys, within
the cooldown) before everything about it is right.
"""

# ruff: noqa: EM101 - what an OidcError is given is a reason slug, not a message
from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import msgspec

from session_core.errors import LogoutTokenError
from session_core.oidc.verify.claims import (
    MAX_SKEW_SECONDS,
    SKEW_SECONDS,
    check_audience,
    check_issuer,
    check_times,
    check_type,
    optional_text,
    text,
)
from session_core.oidc.verify.jws import parse_jws

if TYPE_CHECKING:
    from session_core.oidc.verify.keys import KeyCache

__all__ = ("REPLAY_SECONDS", "ExpectedLogoutToken", "LogoutOrder", "validate_logout_token")

_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
_MAX_AGE_SECONDS: Final = 180
"""The oldest `iat`: the specification recommends an expiry of at most two minutes, and a delivery may be repeated."""
REPLAY_SECONDS: Final = _MAX_AGE_SECONDS + 2 * MAX_SKEW_SECONDS
"""How long a `jti` must be remembered: as long as a token with it could pass, at the largest tolerance of clocks."""


class ExpectedLogoutToken(msgspec.Struct, frozen=True, kw_only=True):
    """What a logout token must be like. `now` is Unix time in seconds; `issuer_of` and `several_issuers` as for an ID token."""

    issuer_of: Callable[[Mapping[str, Any]], str | None]
    several_issuers: bool = False
    client_id: str
    algorithms: frozenset[str]
    jwks_uri: str
    now: float
    typ_required: bool
    exp_required: bool
    skew: int = SKEW_SECONDS


class LogoutOrder(msgspec.Struct, frozen=True):
    """What a valid logout token orders: to end the OP session `sid` or, without one, all sessions of `subject`.

    `iat` is when the provider issued it, in Unix seconds by its own clock. `replay_key` names the token among all of its
    issuer's, as a digest.
    """

    issuer: str
    sid: str | None
    subject: str | None
    iat: int
    replay_key: str


async def validate_logout_token(token: object, expected: ExpectedLogoutToken, keys: KeyCache) -> LogoutOrder:
    """Return what the token orders.

    Raises `LogoutTokenError` with the reason, or `DiscoveryError` when the provider's keys cannot be had.
    """
    jws = parse_jws(token, algorithms=expected.algorithms, error=LogoutTokenError)
    # Explicit typing (2.4, RFC 8725 3.11) keeps every other token of the provider from being taken for a logout token.
    if expected.typ_required or (jws.typ or "JWT").upper() != "JWT":  # the general name tells no more than none
        check_type(jws.typ, "logout+jwt", required=True, error=LogoutTokenError)
    claims = jws.claims
    # Claims first: a token that is wrong anyway must not cost a fetch of keys.
    issuer = check_issuer(claims, expected.issuer_of(claims), LogoutTokenError)
    check_audience(claims, expected.client_id, LogoutTokenError)
    # Older providers send no `exp`: `iat` bounds the token's age, and `jti` its use to once.
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
        # An ID token has one; that it is forbidden here keeps the two apart.
        raise LogoutTokenError("nonce_present")
    sid, subject = optional_text(claims.get("sid")), optional_text(claims.get("sub"))
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
