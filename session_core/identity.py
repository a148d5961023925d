"""Who is logged in, and the opaque keys under which stores index that."""

from __future__ import annotations

from binascii import b2a_base64
from functools import cached_property
from hashlib import sha256
from typing import Final

import msgspec

__all__ = ("Identity", "op_session_key", "user_key")


_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


def _digest(kind: bytes, issuer: str, name: str) -> str:
    # Each part is length-prefixed: ("a", "bc") and ("ab", "c") must have different digests.
    first, second = issuer.encode(), name.encode()
    sizes = len(kind).to_bytes(4), len(first).to_bytes(4), len(second).to_bytes(4)
    material = b"%b%b%b%b%b%b" % (sizes[0], kind, sizes[1], first, sizes[2], second)
    return b2a_base64(sha256(material).digest(), newline=False).translate(_URL_SAFE)[:-1].decode("ascii")


def user_key(issuer: str, subject: str) -> str:
    """Opaque index key of a user: the pair issuer+subject, the only stable one (OpenID Connect Core 5.7)."""
    return _digest(b"user", issuer, subject)


def op_session_key(issuer: str, sid: str) -> str:
    """Opaque index key of an OP session: `sid` is unique only within its issuer (Back-Channel Logout 1.0, 2.1)."""
    return _digest(b"op_session", issuer, sid)


class Identity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """The logged-in user, as authenticated by the identity provider.

    Two identities are the same user exactly when `issuer` and `subject` are equal; the same subject of another issuer is
    another user. `auth_time` is when the user authenticated: Unix time in seconds by the provider's clock.
    """

    issuer: str
    subject: str
    sid: str | None = None
    auth_time: int | None = None
    acr: str | None = None
    amr: tuple[str, ...] = ()

    @cached_property
    def user_key(self) -> str:
        """Opaque index key of this user."""
        return user_key(self.issuer, self.subject)

    @cached_property
    def op_session_key(self) -> str | None:
        """Opaque index key of the OP's session, when the OP named one."""
        return op_session_key(self.issuer, self.sid) if self.sid else None

    def is_same_user(self, other: Identity | None) -> bool:
        """Whether both are the same user (issuer and subject)."""
        return other is not None and (self.issuer, self.subject) == (other.issuer, other.subject)
