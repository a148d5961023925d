"""Signs and verifies cookie values, byte for byte as Node's cookie-signature and express-session; independent of headers.

The signature only saves a store lookup for each forged cookie; it hides nothing. Whether an id opens a session is decided by the
store, under the digest of the id.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from binascii import b2a_base64
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from session_core.errors import ConfigurationError
from session_core.ids import SecretStruct

__all__ = ("CookieSigner", "Unsigned", "parse_secrets", "sign_cookie", "unsign_cookie")

_PREFIX: Final = "s:"
_MIN_SECRET_BYTES: Final = 32
_DERIVED_KEY_BYTES: Final = 32
_BLOCK_BYTES: Final = 64
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))
_MAKE_ONE: Final = 'make one with: python -c "import secrets; print(secrets.token_urlsafe(48))"'


class Unsigned(SecretStruct, frozen=True):
    """A value with a valid signature.

    `by_first_secret` is false when an older secret signed it: sign it again and set the cookie again.
    """

    value: str
    by_first_secret: bool


def sign_cookie(value: str, secret: str | bytes) -> str:
    """Return `s:` + value + `.` + base64(HMAC-SHA256(secret, value)) without padding.

    Raises `ValueError` for text that UTF-8 cannot encode (lone surrogates), `ConfigurationError` for an empty secret.
    """
    key = _key_bytes(secret)
    return f"{_PREFIX}{value}.{_signature(_message(value), key).decode('ascii')}"


def unsign_cookie(signed: str, secrets: Sequence[str | bytes]) -> Unsigned | None:
    """Return the value when one of `secrets` signed it, else `None`. Never raises for anything in `signed`.

    The value ends at the LAST dot, as in cookie-signature. Only the one canonical spelling of a signature verifies:
    the text is compared, not its decoded bytes, so padding and unused base64 bits cannot make a second valid cookie.
    """
    return _unsign(signed, [_key_bytes(secret) for secret in secrets])


class CookieSigner:
    """Signs with the first of `secrets`, verifies with all of them.

    Made from the plain secrets it serves the session cookie alone (and is interchangeable with express-session); every
    other cookie gets its own keys from `for_cookie`, so that a value signed for one never verifies as another.
    """

    __slots__ = ("_inner", "_keys", "_outer")

    def __init__(self, secrets: Sequence[str | bytes]) -> None:
        """Raise `ConfigurationError` when there is no secret or one is shorter than 32 bytes."""
        if isinstance(secrets, str | bytes):
            # A plain string is a sequence of one-character secrets, which is always a mistake.
            msg = "pass the cookie secrets as a list, for example CookieSigner([secret])"
            raise ConfigurationError(msg)
        if not secrets:
            msg = f"at least one cookie secret is needed; {_MAKE_ONE}"
            raise ConfigurationError(msg)
        self._use(_strong_keys(secrets))

    @classmethod
    def for_cookie(cls, name: str, secrets: Sequence[str | bytes]) -> CookieSigner:
        """Return a signer whose keys are derived from the secrets and the cookie's name (HKDF-SHA256, RFC 5869)."""
        info = b"session_core signed cookie\0" + name.encode()
        signer = cls(secrets)
        signer._use(
            [HKDF(algorithm=SHA256(), length=_DERIVED_KEY_BYTES, salt=None, info=info).derive(key) for key in signer._keys]
        )
        return signer

    def _use(self, keys: list[bytes]) -> None:
        self._keys = keys
        # HMAC (RFC 2104) with both key blocks hashed in advance: a third of the time of the hmac module.
        block = (sha256(keys[0]).digest() if len(keys[0]) > _BLOCK_BYTES else keys[0]).ljust(_BLOCK_BYTES, b"\0")
        self._inner, self._outer = sha256(block.translate(_INNER)), sha256(block.translate(_OUTER))

    def sign(self, value: str) -> str:
        """Return the signed form, made with the first secret. Raises `ValueError` for lone surrogates."""
        return f"{_PREFIX}{value}.{self._mac(_message(value)).decode('ascii')}"

    def unsign(self, cookie: str) -> Unsigned | None:
        """Return the value when one of the secrets signed it, else `None`; never raises."""
        return _unsign(cookie, self._keys)

    def unsign_id(self, session_id: bytes, signature: bytes) -> str | None:
        """Return the id if the first secret made its signature, which is percent-encoded as in a cookie; else `None`.

        For ids only: ASCII without a dot.
        """
        expected = self._mac(session_id).replace(b"+", b"%2B").replace(b"/", b"%2F")
        return session_id.decode("ascii") if hmac.compare_digest(expected, signature) else None

    def _mac(self, message: bytes) -> bytes:
        """Return the signature by the first secret, in base64 without padding."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return b2a_base64(outer.digest(), newline=False)[:-1]

    def __repr__(self) -> str:
        """Show how many secrets there are, never one of them."""
        return f"CookieSigner(<{len(self._keys)} secrets>)"


def parse_secrets(text: str) -> tuple[str, ...]:
    """Split a comma-separated list of secrets; white space around each is dropped.

    Raises `ConfigurationError` for an empty entry or one shorter than 32 bytes; it names the position, never the text.
    """
    secrets = tuple(part.strip() for part in text.split(","))
    _strong_keys(secrets)
    return secrets


def _unsign(signed: str, keys: Sequence[bytes]) -> Unsigned | None:
    if not signed.startswith(_PREFIX):
        return None
    value, dot, signature = signed[len(_PREFIX) :].rpartition(".")
    if not dot:
        return None
    message, given = _utf8(value), _utf8(signature)
    if message is None or given is None:
        return None
    for position, key in enumerate(keys):
        if hmac.compare_digest(_signature(message, key), given):
            return Unsigned(value, position == 0)
    return None


def _signature(message: bytes, key: bytes) -> bytes:
    return b64encode(hmac.digest(key, message, "sha256")).rstrip(b"=")


def _message(value: str) -> bytes:
    message = _utf8(value)
    if message is None:
        msg = "a cookie value must be text that UTF-8 can encode"
        raise ValueError(msg)
    return message


def _utf8(text: str) -> bytes | None:
    # Callers raise outside of the except block: a UnicodeEncodeError contains the whole text, here always a secret, and tools
    # that print exception chains would show it.
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None


def _key_bytes(secret: str | bytes) -> bytes:
    key = _utf8(secret) if isinstance(secret, str) else secret if isinstance(secret, bytes) else None
    if not key:
        msg = f"a cookie secret must be non-empty UTF-8 text or bytes; {_MAKE_ONE}"
        raise ConfigurationError(msg)
    return key


def _strong_keys(secrets: Sequence[str | bytes]) -> list[bytes]:
    keys = [_key_bytes(secret) if secret else b"" for secret in secrets]
    for position, key in enumerate(keys, start=1):
        if len(key) < _MIN_SECRET_BYTES:
            # The message may contain the length, never the secret: it is printed at start and logged.
            msg = f"cookie secret number {position} has {len(key)} bytes, at least {_MIN_SECRET_BYTES} are needed; {_MAKE_ONE}"
            raise ConfigurationError(msg)
    return keys
