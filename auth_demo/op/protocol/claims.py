"""The claims about a user: userinfo by scope, and the ID token."""

import hashlib
from base64 import urlsafe_b64encode
from typing import Any, Final

from auth_demo.op.settings import Account, OpSettings
from auth_demo.op.state.expiring import Clock
from auth_demo.op.state.keys import SigningKeys
from auth_demo.op.state.records import Grant

__all__ = ("ID_TOKEN_TYPE", "SCOPE_CLAIMS", "SUPPORTED_SCOPES", "IdTokens", "access_token_hash", "claims_for")

ID_TOKEN_TYPE: Final = "JWT"  # noqa: S105 - a type, no secret

SCOPE_CLAIMS: Final[dict[str, tuple[str, ...]]] = {
    "openid": ("sub",),
    "profile": ("name", "preferred_username", "roles"),
    "email": ("email", "email_verified"),
    "roles": ("roles",),
    "offline_access": (),
}
SUPPORTED_SCOPES: Final = tuple(SCOPE_CLAIMS)


def claims_for(account: Account, scope: str) -> dict[str, Any]:
    """Return the claims that `scope` (space separated) releases (OIDC Core 5.4); ``sub`` always is one."""
    known: dict[str, Any] = {
        "sub": account.sub,
        "name": account.name,
        "preferred_username": account.username,
        "email": account.email,
        "email_verified": True,
        "roles": list(account.roles),
    }
    released = {"sub"}.union(*(SCOPE_CLAIMS.get(part, ()) for part in scope.split()))
    return {name: value for name, value in known.items() if name in released}


def access_token_hash(access_token: str) -> str:
    """Return ``at_hash`` for ES256: the left half of SHA-256, base64url (OIDC Core 3.1.3.6)."""
    half = hashlib.sha256(access_token.encode("ascii")).digest()[:16]
    return urlsafe_b64encode(half).rstrip(b"=").decode()


class IdTokens:
    """Makes ID tokens and reads them back when they return as ``id_token_hint``."""

    def __init__(self, settings: OpSettings, keys: SigningKeys, clock: Clock) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock

    def issue(self, grant: Grant, account: Account, *, access_token: str, nonce: str | None) -> str:
        """Return a signed ID token of `grant` (OIDC Core 2); `nonce` only at the first issue (12.2)."""
        now = int(self._clock())
        claims: dict[str, Any] = claims_for(account, grant.scope) if self._settings.claims_in_id_token else {}
        claims |= {
            "iss": self._settings.issuer,
            "sub": grant.sub,
            "aud": grant.client_id,
            "iat": now,
            "exp": now + self._settings.lifetimes.id_token,
            "auth_time": grant.auth_time,
            "sid": grant.sid,
            "acr": grant.acr,
            "amr": list(grant.amr),
            "at_hash": access_token_hash(access_token),
        }
        if nonce is not None:
            claims["nonce"] = nonce
        return self._keys.sign(claims, typ=ID_TOKEN_TYPE)

    def read_hint(self, hint: str) -> dict[str, Any] | None:
        """Return the claims of an ID token issued here, however old (OIDC RP-Initiated Logout 2), or ``None``."""
        claims = self._keys.verify(hint, typ=ID_TOKEN_TYPE)
        if claims is None or claims.get("iss") != self._settings.issuer:
            return None
        # Logout tokens are signed with the same keys; their type differs, and they carry no sid-bound audience.
        if "events" in claims or not all(isinstance(claims.get(name), str) for name in ("sub", "aud", "sid")):
            return None
        return claims
