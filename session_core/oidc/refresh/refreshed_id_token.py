"""Checks that the ID token of a refresh belongs to the same login as the first one (OpenID Connect Core 12.2)."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Any, Final

import msgspec

from session_core.errors import IdTokenError
from session_core.identity import Identity
from session_core.oidc.strict_json import parse_object
from session_core.oidc.tokens.vault import TokenSet
from session_core.oidc.verify.claims import audiences_of
from session_core.oidc.verify.id_token import ExpectedIdToken, validate_id_token
from session_core.oidc.verify.keys import KeyCache

__all__ = ("check_refreshed_id_token", "nonce_digest")

_OF_TIME: Final = frozenset({"auth_time_in_future", "expired", "iat_in_future", "iat_too_old", "nbf_in_future"})
_UNREADABLE: Final = frozenset({"encrypted", "token_form", "token_json", "token_too_large"})
"""The ID token of a refresh is optional: one that is malformed counts as absent."""


async def check_refreshed_id_token(
    token: str, expected: ExpectedIdToken, keys: KeyCache, *, login: Identity, old: TokenSet
) -> str | None:
    """Return None if `token` may replace the current ID token, or the reason why it must not be kept.

    The login is the same if issuer, subject and audience are equal, `azp` names us and `nonce` is equal, if present. Then a
    token with wrong times does not end the login: our own clock may be wrong. A changed `auth_time` does not either, although
    Core 12.2 forbids it: some providers write the user's last login there, which may have been in another browser. Nor does an
    `azp` that the first ID token did not have, which Core 12.2 forbids too: it names the same client.

    Raises `IdTokenError` for another login or an invalid token, `DiscoveryError` when the keys are unavailable.
    """
    reason = None
    try:
        valid = await validate_id_token(token, expected, keys)
    except IdTokenError as error:
        if error.reason in _UNREADABLE:
            return error.reason
        if error.reason not in _OF_TIME:
            raise
        reason = error.reason
        valid = await validate_id_token(token, msgspec.structs.replace(expected, timeless=True), keys)
    if not valid.identity.is_same_user(login):
        raise IdTokenError("sub_mismatch")
    if old.id_token is not None:
        first = _claims(old.id_token)
        if {*audiences_of(valid.claims)} != {*audiences_of(first)}:
            raise IdTokenError("aud_mismatch")
        azp = _text(valid.claims.get("azp"))  # the validation has refused another client
        if azp is not None and azp != _text(first.get("azp")):
            reason = reason or "azp_mismatch"
    _check_nonce(valid.claims, nonce_digest(old))
    moved = None not in {valid.identity.auth_time, login.auth_time} and valid.identity.auth_time != login.auth_time
    return reason or ("auth_time_mismatch" if moved else None)


def nonce_digest(tokens: TokenSet) -> str | None:
    """Return the digest of the nonce of the login's own ID token, None when that is not known."""
    if tokens.nonce is not None or tokens.id_token is None:
        return tokens.nonce
    nonce = _claims(tokens.id_token).get("nonce")
    return _digest(nonce) if isinstance(nonce, str) else None


def _check_nonce(claims: dict[str, Any], first: str | None) -> None:
    # It should have no nonce; if it has one, it must be that of the login (Core 12.2).
    nonce = _text(claims.get("nonce"))
    if nonce is None or first is None:
        return
    if not hmac.compare_digest(_digest(nonce), first):
        raise IdTokenError("nonce_mismatch")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _digest(nonce: str) -> str:
    return urlsafe_b64encode(sha256(nonce.encode()).digest()[:16]).rstrip(b"=").decode()


def _claims(token: str) -> dict[str, Any]:
    """Read the claims of a token without verifying it; the caller does that."""
    try:
        return parse_object(urlsafe_b64decode(token.split(".")[1] + "=="))  # superfluous padding is ignored
    except (IndexError, ValueError):
        raise IdTokenError("malformed") from None
