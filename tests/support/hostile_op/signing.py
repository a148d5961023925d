"""Keys and signed tokens, built on `cryptography` only; shares no code with the verifier under test."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

GONE: Final = object()
"""As a changed value: omit the member."""

Header = dict[str, Any]
Claims = dict[str, Any]
Forge = Callable[[Header, Claims], str]
"""Creates a token instead of an honest signature."""

_HASHES: Final[dict[str, Callable[[], hashes.HashAlgorithm]]] = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
_CURVES: Final = {"ES256": ("P-256", 32), "ES384": ("P-384", 48), "ES512": ("P-521", 66)}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**values, **changes}.items() if value is not GONE}


def compact(header: Header, claims: Claims | str | bytes, sign: Callable[[bytes], bytes]) -> str:
    """Return a compact JWS; `claims` as text or bytes are used unchanged."""
    payload = claims if isinstance(claims, bytes) else (claims if isinstance(claims, str) else json.dumps(claims)).encode()
    text = f"{b64(json.dumps(header).encode())}.{b64(payload)}"
    return f"{text}.{b64(sign(text.encode()))}"


class SigningKey:
    """A private key with its algorithm and published `kid`."""

    def __init__(self, private: Any, alg: str, kid: str | None) -> None:
        self.private, self.alg, self.kid = private, alg, kid

    def jwk(self, **changes: Any) -> dict[str, Any]:
        if isinstance(self.private, rsa.RSAPrivateKey):
            numbers = self.private.public_key().public_numbers()
            jwk: dict[str, Any] = {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
        elif isinstance(self.private, ec.EllipticCurvePrivateKey):
            curve, size = _CURVES[self.alg]
            point = self.private.public_key().public_numbers()
            jwk = {"kty": "EC", "crv": curve, "x": _number(point.x, size), "y": _number(point.y, size)}
        else:
            jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(self.private.public_key().public_bytes_raw())}
        return changed({**jwk, "use": "sig", "alg": self.alg, "kid": self.kid or GONE}, changes)

    def sign(self, text: bytes) -> bytes:
        if isinstance(self.private, Ed25519PrivateKey):
            return self.private.sign(text)
        digest = _HASHES[self.alg[-3:]]()
        if isinstance(self.private, rsa.RSAPrivateKey):
            salt = padding.PSS(padding.MGF1(digest), digest.digest_size)
            return self.private.sign(text, padding.PKCS1v15() if self.alg.startswith("RS") else salt, digest)
        size = _CURVES[self.alg][1]
        r, s = decode_dss_signature(self.private.sign(text, ec.ECDSA(digest)))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    def public_pem(self) -> bytes:
        """The public key as text, which a verifier with key confusion would use as an HMAC secret."""
        pem: bytes = self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem


@functools.cache
def signing_key(alg: str = "RS256", number: int = 1, kid: str | None = "key-1") -> SigningKey:
    """Return a key; the same arguments return the same key. `number` distinguishes keys of one kind."""
    return SigningKey(_private(alg if alg.startswith("E") else "RSA", number), alg, kid)


@functools.cache
def _private(kind: str, number: int) -> Any:
    del number
    curves: dict[str, Callable[[], ec.EllipticCurve]] = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}
    if kind in curves:
        return ec.generate_private_key(curves[kind]())
    return rsa.generate_private_key(65537, 2048) if kind == "RSA" else Ed25519PrivateKey.generate()


def unsigned(header: Header, claims: Claims) -> str:
    """A token without a signature."""
    return compact({**header, "alg": "none"}, claims, lambda _: b"")


def by_secret(secret: bytes) -> Forge:
    """Sign with HS256 by a public secret."""
    return lambda header, claims: compact({**header, "alg": "HS256"}, claims, lambda text: hmac.digest(secret, text, "sha256"))


def half_hash(alg: str, value: str) -> str:
    """Return `at_hash` and similar (OpenID Connect Core 3.1.3.6); Ed25519 uses SHA-512."""
    name = f"sha{alg[-3:]}" if alg[-3:] in _HASHES else "sha512"
    digest = hashlib.new(name, value.encode()).digest()
    return b64(digest[: len(digest) // 2])


def claims_of(token: str) -> Claims:
    """Return the claims of a token without verification."""
    said: Claims = json.loads(unb64(token.split(".")[1]))
    return said


def is_signed_by(token: str, public: Any) -> bool:
    """Whether a client's assertion was signed by its registered key."""
    text, _, signature = token.rpartition(".")
    raw, alg = unb64(signature), json.loads(unb64(token.split(".", maxsplit=1)[0]))["alg"]
    try:
        if isinstance(public, rsa.RSAPublicKey):
            digest = _HASHES[alg[-3:]]()
            salt = padding.PSS(padding.MGF1(digest), digest.digest_size)
            public.verify(raw, text.encode(), padding.PKCS1v15() if alg.startswith("RS") else salt, digest)
        elif isinstance(public, ec.EllipticCurvePublicKey):
            half = len(raw) // 2
            pair = encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
            public.verify(pair, text.encode(), ec.ECDSA(_HASHES[alg[-3:]]()))
        else:
            public.verify(raw, text.encode())
    except InvalidSignature:
        return False
    return True


def _number(value: int, size: int | None = None) -> str:
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))
