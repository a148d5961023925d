"""Random values that grant something, and the digests under which they are kept."""

import hashlib
import hmac
import secrets

__all__ = ("digest", "new_public_id", "new_secret", "same")


def new_secret() -> str:
    """Return 256 random bits as URL-safe text: a code, a token or a cookie value (ASVS 11.5.1)."""
    return secrets.token_urlsafe(32)


def new_public_id() -> str:
    """Return 128 random bits for an identifier that grants nothing (``sid``, ``jti``)."""
    return secrets.token_urlsafe(16)


def digest(secret: str) -> str:
    """Return the key under which `secret` is stored, so that a memory dump or a log holds no usable value."""
    return hashlib.sha256(secret.encode()).hexdigest()


def same(left: str, right: str) -> bool:
    """Compare two secrets without telling by timing where they differ."""
    return hmac.compare_digest(left.encode(), right.encode())
