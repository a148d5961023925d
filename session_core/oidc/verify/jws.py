"""Parses a signed token and verifies its signature with one key. Independent of claims; fetches no keys.

joserfc verifies the signature. The stricter checks before it are here, because a library must accept more: only the compact form,
canonical base64, strict JSON and a few asymmetric algorithms.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Set as AbstractSet
from typing import Any, Final

import msgspec
from joserfc.jws import JWSRegistry

from session_core.errors import OidcError
from session_core.ids import SecretStruct
from session_core.oidc.strict_json import parse_object

__all__ = ("MAX_TOKEN_CHARS", "Jws", "VerificationKey", "fits", "parse_jws", "verifies")

MAX_TOKEN_CHARS: Final = 65_536
"""The longest token that is parsed."""
_MAX_KID: Final = 512
_PARTS: Final = 3
_JWE_PARTS: Final = 5
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+\Z")
_CURVES: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}
_KEY_TYPES: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


class VerificationKey(msgspec.Struct, frozen=True):
    """A public key of the provider with the members of its JWK. `curve` is empty for RSA.

    `issuer` limits the key to tokens of one issuer, if the provider publishes keys of several (Entra ID).
    """

    key_type: str
    curve: str
    kid: str | None
    alg: str | None
    key: Any
    issuer: str | None = None


class Jws(SecretStruct, frozen=True):
    """A parsed but unverified token; trust nothing in it before `verifies` returns true."""

    alg: str
    kid: str | None
    typ: str | None
    claims: dict[str, Any]
    signing_input: bytes
    signature: bytes


def parse_jws(token: object, *, algorithms: AbstractSet[str], error: type[OidcError]) -> Jws:
    """Parse a token (RFC 7515 7.1).

    `jwk`, `jku`, `x5u` and `x5c` headers are ignored: a token must not choose the key that verifies it.
    Raises `error` with one of the reasons `token_form`, `encrypted`, `token_too_large`, `token_json`, `alg_not_allowed`,
    `crit_header`. `kid` and `typ` are optional: null, empty or malformed values count as absent.
    """
    if not isinstance(token, str):
        raise error("token_form")
    if len(token) > MAX_TOKEN_CHARS:
        raise error("token_too_large")
    parts = [_decode(part) for part in token.split(".")]
    if len(parts) == _JWE_PARTS and _is_encrypted(parts[0]):
        raise error("encrypted")
    if len(parts) != _PARTS or any(part is None for part in parts):
        raise error("token_form")
    try:
        header, claims = parse_object(parts[0] or b""), parse_object(parts[1] or b"")
    except ValueError:
        raise error("token_json") from None
    alg = header.get("alg")
    if not isinstance(alg, str) or alg not in algorithms:
        raise error("alg_not_allowed")
    # Critical extensions are not supported (RFC 7515 4.1.11); `b64` changes the signed bytes (RFC 7797).
    if "crit" in header or "b64" in header:
        raise error("crit_header")
    kid, typ = short_text(header.get("kid")), short_text(header.get("typ"))
    return Jws(alg, kid, typ, claims, token.rpartition(".")[0].encode("ascii"), parts[2] or b"")


def fits(jws: Jws, key: VerificationKey) -> bool:
    """Whether `key` is of the type that the token's algorithm needs; the token never decides how a key is used."""
    if key.key_type != _KEY_TYPES[jws.alg[:2]] or key.curve != _CURVES.get(jws.alg, ""):
        return False
    same_family = {"EdDSA", "Ed25519"}
    return key.alg is None or key.alg == jws.alg or {key.alg, jws.alg} == same_family


def verifies(jws: Jws, key: VerificationKey) -> bool:
    """Whether `key`, for which `fits` is true, made the token's signature."""
    # joserfc warns at "EdDSA", the older name of the same algorithm (RFC 9864); the key is known to be Ed25519.
    algorithm = JWSRegistry.algorithms["Ed25519" if jws.alg == "EdDSA" else jws.alg]
    try:
        return algorithm.verify(jws.signing_input, jws.signature, key.key)
    except Exception:  # noqa: BLE001 - a key or signature that the cryptography refuses to look at did not sign this
        return False


def _decode(part: str) -> bytes | None:
    if not _BASE64URL.match(part) or len(part) % 4 == 1:
        return None
    decoded = urlsafe_b64decode(part + "==")  # superfluous padding is ignored
    # Refuse unused bits: they would allow a second spelling of the same token.
    return decoded if urlsafe_b64encode(decoded).rstrip(b"=") == part.encode() else None


def _is_encrypted(header: bytes | None) -> bool:
    """Whether this is the header of an encrypted token (RFC 7516 4.1.2), which some providers can be configured to send."""
    try:
        return "enc" in parse_object(header or b"")
    except ValueError:
        return False


def short_text(value: object) -> str | None:
    """Return a text of sane length, or None."""
    return value if isinstance(value, str) and 0 < len(value) <= _MAX_KID else None
