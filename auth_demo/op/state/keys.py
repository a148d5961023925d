"""The provider's signing keys: ES256, made at start, rotatable; signs JWTs, and verifies those it signed."""

from collections.abc import Mapping
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet

__all__ = ("SIGNING_ALGORITHM", "SigningKeys")

SIGNING_ALGORITHM: Final = "ES256"
_RETIRED_KEPT: Final = 4


def _new_key() -> ECKey:
    key = ECKey.generate_key("P-256", parameters={"use": "sig", "alg": SIGNING_ALGORITHM}, private=True)
    # RFC 7638: the thumbprint as kid can never collide or be reused for another key.
    return ECKey.import_key({**key.as_dict(private=True), "kid": key.thumbprint()})


class SigningKeys:
    """One current key that signs, and retired public keys that still verify."""

    def __init__(self) -> None:
        self._keys = [_new_key()]

    @property
    def current_kid(self) -> str:
        """The RFC 7638 thumbprint of the key that signs now."""
        return self._keys[0].kid or ""

    def rotate(self, *, keep_old: bool = True) -> str:
        """Sign with a fresh key from now on and return its kid.

        Old keys stay in the JWKS for clients that hold tokens signed with them, unless `keep_old` is false
        (as after a compromise).
        """
        old = self._keys[:_RETIRED_KEPT] if keep_old else []
        self._keys = [_new_key(), *old]
        return self.current_kid

    def public_jwks(self) -> dict[str, Any]:
        """Return the JWK set document (RFC 7517 5): public members only."""
        return {"keys": [key.as_dict(private=False) for key in self._keys]}

    def sign(self, claims: Mapping[str, Any], *, typ: str) -> str:
        """Return `claims` as a compact JWS of the current key with the explicit type `typ` (RFC 8725 3.11)."""
        header = {"alg": SIGNING_ALGORITHM, "kid": self.current_kid, "typ": typ}
        return jwt.encode(header, dict(claims), self._keys[0], algorithms=[SIGNING_ALGORITHM])

    def verify(self, token: str, *, typ: str) -> dict[str, Any] | None:
        """Return the claims of a JWT signed here with type `typ`, or ``None``; times are not judged."""
        try:
            decoded = jwt.decode(token, KeySet([*self._keys]), algorithms=[SIGNING_ALGORITHM])
        except (JoseError, ValueError, TypeError, KeyError, RecursionError):
            # RecursionError: the header is parsed before the signature is known to be ours.
            return None
        if decoded.header.get("typ") != typ or not isinstance(decoded.claims, dict):
            return None
        return decoded.claims
