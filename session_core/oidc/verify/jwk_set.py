"""Parses a provider's JWK Set into the public keys that may verify signatures. Fetches nothing."""

from __future__ import annotations

from typing import Any, Final

from joserfc.jwk import ECKey, OKPKey, RSAKey

from session_core.oidc.verify.jws import VerificationKey, short_text

__all__ = ("MAX_KEYS", "parse_jwk_set")

MAX_KEYS: Final = 100
"""The most entries of a set that are read."""
_PRIVATE: Final = frozenset({"d", "k", "p", "q", "dp", "dq", "qi", "oth"})
_CURVES: Final = frozenset({"P-256", "P-384", "P-521", "Ed25519"})
_RSA_BITS: Final = range(2048, 8193)
_MAX_EXPONENT_BITS: Final = 32
"""Real keys use 65537 or less. A large exponent makes verification slow: 20 ms per token for 3,070 bits."""
_MAX_MEMBER_CHARS: Final = 2048
_USED: Final = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y"), "OKP": ("kty", "crv", "x")}
"""The members of the key itself: joserfc would also check certificates and URLs, and some providers write null for the others."""


def parse_jwk_set(document: dict[str, Any]) -> tuple[VerificationKey, ...]:
    """Return the usable keys of a JWK Set (RFC 7517 5). Raises `ValueError` when it is none.

    Entries that are malformed, unknown, for encryption, symmetric, weak, private or slow are ignored: one bad entry must not stop
    all logins. A published private key proves nothing. An optional member that is null, empty or malformed counts as absent.
    """
    entries = document.get("keys")
    if not isinstance(entries, list):
        msg = "not a JWK Set"
        raise ValueError(msg)  # noqa: TRY004 - the content is wrong
    keys = (_parse(entry) for entry in entries[:MAX_KEYS])
    return tuple(key for key in keys if key is not None)


def _parse(entry: object) -> VerificationKey | None:
    if not isinstance(entry, dict) or any(entry.get(name) for name in _PRIVATE):
        return None
    kid, alg, use, issuer = (short_text(entry.get(name)) for name in ("kid", "alg", "use", "issuer"))
    operations = entry.get("key_ops")
    if not isinstance(operations, list) or not all(map(short_text, operations)):
        operations = None
    if use not in {None, "sig"} or (operations and "verify" not in operations):
        return None
    kind = entry.get("kty")
    if not isinstance(kind, str) or kind not in _USED:
        return None
    members: dict[str, Any] = {name: entry.get(name) for name in _USED[kind]}
    if not all(isinstance(value, str) and len(value) <= _MAX_MEMBER_CHARS for value in members.values()):
        return None
    curve = members.get("crv", "")
    try:
        key = _import(kind, curve, members)
    except Exception:  # noqa: BLE001 - whatever a malformed key provokes, it is a key we cannot use
        return None
    return None if key is None else VerificationKey(kind, curve, kid, alg, key, issuer)


def _import(kind: str, curve: str, members: dict[str, Any]) -> RSAKey | ECKey | OKPKey | None:
    if kind == "RSA":
        # Before the import: a huge modulus costs time, and joserfc warns about a small one.
        bits = len(members["n"].rstrip("=")) * 6
        if bits not in range(_RSA_BITS.start, _RSA_BITS.stop + 16):
            return None
        rsa = RSAKey.import_key(members)
        fast = rsa.public_key.public_numbers().e.bit_length() <= _MAX_EXPONENT_BITS
        return rsa if fast and rsa.public_key.key_size in _RSA_BITS else None
    if curve not in _CURVES:
        return None
    return ECKey.import_key(members) if kind == "EC" else OKPKey.import_key(members)
