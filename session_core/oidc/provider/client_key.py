"""The private key of client authentication. Signs, and sends nothing."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import msgspec
from joserfc.jwk import ECKey, OKPKey, RSAKey, import_key
from joserfc.jws import JWSRegistry

from session_core.errors import ConfigurationError

__all__ = ("ClientKey",)

_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_FITTING: Final[dict[str, tuple[str, ...]]] = {
    "RSA": _RSA, "P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",), "Ed25519": ("EdDSA", "Ed25519"),
}  # fmt: skip
"""By key type and curve; the first is the default."""
_MIN_RSA_BITS: Final = 2048
_MAX_KID: Final = 255
_PEM: Final = re.compile(rb"-----BEGIN (?:RSA |EC )?PRIVATE KEY-----")


class ClientKey:
    """A private key for `private_key_jwt` (OpenID Connect Core 9), as PEM or as a JWK.

    The algorithm follows from the key: RS256 for RSA, ES256, ES384 or ES512 by the curve, EdDSA for Ed25519. `alg` selects
    another matching one, PS256 for example; `kid` is the provider's name for the key. A JWK contains both. Raises
    `ConfigurationError`; the key is in no message and no repr.
    """

    def __init__(self, key: str | bytes | Mapping[str, Any], *, alg: str | None = None, kid: str | None = None) -> None:
        members = dict(key) if isinstance(key, Mapping) else _members(key)
        self._key = _read(members if members is not None else _pem(key))
        said = members or {}
        self.kid = kid if kid is not None else said.get("kid")
        if self.kid is not None and not (isinstance(self.kid, str) and 0 < len(self.kid) <= _MAX_KID and self.kid.isprintable()):
            _refuse("the kid of a client key is a short text")
        fitting = _fitting(self._key)
        self.alg = str(alg or said.get("alg") or fitting[0])
        if self.alg not in fitting:
            _refuse(f"this client key signs with {' or '.join(fitting)}, not with what was asked for")

    def __repr__(self) -> str:
        return f"<ClientKey {self.alg}>"

    def sign(self, typ: str, claims: Mapping[str, Any]) -> str:
        """Return a signed token in compact form (RFC 7515 7.1)."""
        header = {"alg": self.alg, "typ": typ} | ({"kid": self.kid} if self.kid else {})
        text = f"{_base64url(msgspec.json.encode(header))}.{_base64url(msgspec.json.encode(claims))}"
        # joserfc warns at "EdDSA", the older name of the same algorithm (RFC 9864).
        algorithm: Any = JWSRegistry.algorithms["Ed25519" if self.alg == "EdDSA" else self.alg]
        return f"{text}.{_base64url(algorithm.sign(text.encode('ascii'), self._key))}"


def _members(key: str | bytes) -> dict[str, Any] | None:
    """Return the members of a JWK in JSON text, or None for other text."""
    text = key.encode() if isinstance(key, str) else key
    if not text.lstrip().startswith(b"{"):
        return None
    try:
        members: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError:
        _refuse("the client key is no JWK")
    return members


def _pem(key: str | bytes | Mapping[str, Any]) -> bytes:
    text = key.encode() if isinstance(key, str) else bytes(key) if isinstance(key, bytes) else b""
    if not _PEM.search(text):
        _refuse("the client key is neither an unencrypted private key in PEM nor a private JWK")
    return text


def _read(key: bytes | dict[str, Any]) -> RSAKey | ECKey | OKPKey:
    found: Any = None
    try:
        if isinstance(key, dict):
            found = import_key({name: value for name, value in key.items() if name not in {"kid", "alg", "use", "key_ops"}})
        else:
            for kind in (RSAKey, ECKey, OKPKey):
                try:
                    found = kind.import_key(key)
                except Exception:  # noqa: BLE001, S112 - a key of another kind
                    continue
                break
    except Exception:  # noqa: BLE001 - not chained: the message of a library may quote the key
        found = None
    if not isinstance(found, RSAKey | ECKey | OKPKey) or not found.is_private:
        _refuse("the client key is no private RSA, EC or Ed25519 key")
    return found


def _fitting(key: RSAKey | ECKey | OKPKey) -> tuple[str, ...]:
    if isinstance(key, RSAKey):
        if key.public_key.key_size < _MIN_RSA_BITS:
            _refuse(f"an RSA client key has at least {_MIN_RSA_BITS} bits")
        return _FITTING["RSA"]
    curve = str(key.as_dict(private=False).get("crv", ""))
    if curve not in _FITTING:
        _refuse("a client key's curve is P-256, P-384, P-521 or Ed25519")
    return _FITTING[curve]


def _base64url(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _refuse(problem: str) -> NoReturn:
    msg = f"{problem}; for example client_key=ClientKey(Path('client-key.pem').read_text())"
    raise ConfigurationError(msg) from None
