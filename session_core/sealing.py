"""Encrypts small values at rest or in a cookie (AES-256-GCM) under keys that can be rotated. Independent of their content.

A sealed value is: version (1 byte, 1) | key id (4 bytes) | nonce (12 bytes) | ciphertext and tag. The key id is the
beginning of the key's SHA-256 digest and only selects the key to try. Nonces are random: seal at most 2^32 values under
one key (NIST SP 800-38D 8.3), then rotate.
"""

from __future__ import annotations

import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Final, NoReturn, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from session_core.errors import ConfigurationError

__all__ = ("SealingKeys", "generate_key", "parse_keys")

T = TypeVar("T", bound=msgspec.Struct)

_VERSION: Final = b"\x01"
_KEY_BYTES: Final = 32
_KEY_ID_BYTES: Final = 4
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_HEADER_BYTES: Final = len(_VERSION) + _KEY_ID_BYTES
_KEY_FORM: Final = re.compile(r"[A-Za-z0-9_-]{43}=?\Z")
_TEXT: Final = re.compile(r"[A-Za-z0-9_-]+\Z")
_MAKE_ONE: Final = 'make one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'


class SealingKeys:
    """Seals with the first of `keys`, unseals with all of them."""

    __slots__ = ("_ciphers",)

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Raise `ConfigurationError` when there is no key or one is not 32 bytes long."""
        if not keys or isinstance(keys, bytes):
            msg = f"at least one encryption key is needed, in a list; {_MAKE_ONE}"
            raise ConfigurationError(msg)
        for position, key in enumerate(keys, start=1):
            if len(key) != _KEY_BYTES:
                _refuse(position)
        self._ciphers = [(sha256(key).digest()[:_KEY_ID_BYTES], AESGCM(key)) for key in keys]

    def seal(self, plain: bytes, *, context: str) -> bytes:
        """Encrypt under the first key. Only the same `context` unseals it.

        The context names the kind of value and its owner (`tokens:<user key>`), so that a value copied to another user's record
        or another cookie does not open there.
        """
        key_id, cipher = self._ciphers[0]
        header = _VERSION + key_id
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return header + nonce + cipher.encrypt(nonce, plain, _associated(header, context))

    def unseal(self, sealed: bytes, *, context: str) -> bytes | None:
        """Return the plain bytes, or `None` when they cannot be trusted; never raises for what is in `sealed`.

        A changed byte, a cut, an unknown key or version and another context all look the same: an attacker learns
        nothing from the difference.
        """
        if len(sealed) < _HEADER_BYTES + _NONCE_BYTES + _TAG_BYTES or sealed[:1] != _VERSION:
            return None
        header, nonce = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES : _HEADER_BYTES + _NONCE_BYTES]
        associated = _associated(header, context)
        for key_id, cipher in self._ciphers:
            # Key ids are short: two keys may share one, so a failure goes on to the next.
            if key_id == header[len(_VERSION) :]:
                try:
                    return cipher.decrypt(nonce, sealed[_HEADER_BYTES + _NONCE_BYTES :], associated)
                except (InvalidTag, OverflowError):
                    continue
        return None

    def seal_text(self, value: msgspec.Struct, *, context: str) -> str:
        """Return a sealed value as text, for a cookie or a parameter."""
        return urlsafe_b64encode(self.seal(msgspec.msgpack.encode(value), context=context)).rstrip(b"=").decode()

    def unseal_text(self, text: str, kind: type[T], *, context: str) -> T | None:
        """Return what `seal_text` sealed, or `None` when it cannot be trusted, or is of another version of this program."""
        if not _TEXT.match(text):
            return None
        try:
            plain = self.unseal(urlsafe_b64decode(text + "=" * (-len(text) % 4)), context=context)
            return None if plain is None else msgspec.msgpack.decode(plain, type=kind)
        except (ValueError, msgspec.MsgspecError):
            return None

    def needs_reseal(self, sealed: bytes) -> bool:
        """Whether an older key or format version sealed it; does not verify it."""
        return sealed[:_HEADER_BYTES] != _VERSION + self._ciphers[0][0]

    def __repr__(self) -> str:
        """Show how many keys there are, never one of them."""
        return f"SealingKeys(<{len(self._ciphers)} keys>)"


def generate_key() -> str:
    """Return a new key: 32 random bytes as 43 characters of base64url."""
    return secrets.token_urlsafe(_KEY_BYTES)


def parse_keys(text: str) -> tuple[bytes, ...]:
    """Decode a comma-separated list of keys, each 32 bytes in base64url (with or without its padding).

    Raises `ConfigurationError`, which names the position of the unfit key and never its text.
    """
    return tuple(_decode(part.strip(), position) for position, part in enumerate(text.split(","), start=1))


def _decode(text: str, position: int) -> bytes:
    # b64decode drops invalid characters: a mistyped key would silently become another key.
    if not _KEY_FORM.match(text):
        _refuse(position)
    key = urlsafe_b64decode(text.rstrip("=") + "=")
    if urlsafe_b64encode(key).decode().rstrip("=") != text.rstrip("="):
        _refuse(position)
    return key


def _associated(header: bytes, context: str) -> bytes:
    return header + context.encode("utf-8", "surrogatepass")


def _refuse(position: int) -> NoReturn:
    msg = f"encryption key number {position} is not 32 random bytes in base64url; {_MAKE_ONE}"
    raise ConfigurationError(msg)
