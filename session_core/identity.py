"""Who is logged in, and the opaque keys under which stores index that."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from functools import cached_property
from hashlib import sha256

import msgspec

__all__ = ("Identity", "op_session_key", "user_key")


def _digest(kind: str, *parts: str) -> str:
    # Each part is length-prefixed: ("a", "bc") and ("ab", "c") must have different digests.
    material = b"".join(len(raw).to_bytes(4, "big") + raw for raw in (part.encode() for part in (kind, *parts)))
    return urlsafe_b64encode(sha256(material).digest()).rstrip(b"=").decode()


def user_key(issuer: str, subject: str) -> str:
    """Opaque index key of a user: the pair issuer+subject, the only stable one (OpenID Connect Core 5.7)."""
    return _digest("user", issuer, subject)


def op_session_key(issuer: str, sid: str) -> str:
    """Opaque index key of an OP session: `sid` is unique only within its issuer (Back-Channel Logout 1.0, 2.1)."""
    return _digest("op_session", issuer, sid)


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
