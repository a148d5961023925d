"""The tokens of one login, sealed in the session and bound to its user. Fetches nothing."""

from __future__ import annotations

from typing import Final

import msgspec

from session_core.identity import Identity
from session_core.ids import SecretStruct
from session_core.sealing import SealingKeys
from session_core.sessions.unknown_fields import Unknown, find_unknown, restore, shape_of

__all__ = ("Lease", "TokenSet", "TokenVault")


class Lease(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which process may redeem the refresh token beside it. `holder` is random for each lease, and empty when it is free.

    `term` counts the leases of one login and is never reused: it is the fencing token. `beat` counts the renewals: when it
    changes, the holder is alive, independent of clocks.
    """

    term: int = msgspec.field(name="t", default=0)
    holder: str = msgspec.field(name="h", default="")
    beat: int = msgspec.field(name="b", default=0)

    @property
    def held(self) -> bool:
        """Whether it has a holder, dead or alive."""
        return bool(self.holder)


class TokenSet(SecretStruct, frozen=True, kw_only=True, omit_defaults=True):
    """The tokens of one login. `expires_at` is when the access token expires, Unix milliseconds; None if unknown."""

    access_token: str = msgspec.field(name="a")
    expires_at: int | None = msgspec.field(name="e", default=None)
    refresh_token: str | None = msgspec.field(name="r", default=None)
    id_token: str | None = msgspec.field(name="i", default=None)
    scope: str | None = msgspec.field(name="s", default=None)
    provider: str = msgspec.field(name="p", default="default")
    lifetime: int | None = msgspec.field(name="x", default=None)
    """The lifetime of the access token when issued, in seconds."""
    family: str = msgspec.field(name="f", default="")
    """Random for each login, set by its first lease: tokens of one login are never stored into another."""
    term: int = msgspec.field(name="t", default=0)
    """The term of the lease under which these were redeemed; 0 for the tokens of the login."""
    nonce: str | None = msgspec.field(name="n", default=None)
    """Digest of the nonce of the login's own ID token, once that has been replaced by a refreshed one."""
    lease: Lease = msgspec.field(name="l", default=Lease())
    """Free for a login that has never been refreshed."""
    newer: Unknown | None = msgspec.field(name="-", default=None)
    """Fields that a newer version of this library has written; never stored under this name."""


_TOKENS: Final = shape_of(TokenSet)


class TokenVault:
    """Seals and opens token sets. Bound to the user: a vault copied into another user's session cannot be opened."""

    def __init__(self, sealing: SealingKeys) -> None:
        self._sealing = sealing

    def seal(self, tokens: TokenSet, identity: Identity) -> bytes:
        """Return the sealed tokens for the session's vault."""
        plain = msgspec.structs.replace(tokens, newer=None)
        encoded = msgspec.msgpack.encode(plain)
        if tokens.newer is not None:
            encoded = restore(_TOKENS, plain, encoded, tokens.newer)
        return self._sealing.seal(encoded, context=_context(identity))

    def needs_reseal(self, sealed: bytes) -> bool:
        """Whether an older key sealed it."""
        return bool(sealed) and self._sealing.needs_reseal(sealed)

    def open(self, sealed: bytes, identity: Identity | None) -> TokenSet | None:
        """Return the tokens, or None: there are none, the keys were retired, or the vault is not this user's."""
        if identity is None or not sealed:
            return None
        plain = self._sealing.unseal(sealed, context=_context(identity))
        if plain is None:
            return None
        try:
            tokens = msgspec.msgpack.decode(plain, type=TokenSet)
        except msgspec.MsgspecError:
            return None
        return msgspec.structs.replace(tokens, newer=find_unknown(_TOKENS, tokens, plain))


def _context(identity: Identity) -> str:
    return f"oidc-tokens:{identity.user_key}"
