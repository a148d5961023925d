"""What the provider gave us for one login, and how it lies in the session: sealed, for its owner only; fetches nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from session_core.oidc.secret_struct import SecretStruct

if TYPE_CHECKING:
    from session_core.identity import Identity
    from session_core.sealing import SealingKeys

__all__ = ("TokenSet", "TokenVault")


class TokenSet(SecretStruct, frozen=True, kw_only=True, omit_defaults=True):
    """The tokens of one login. `expires_at` is when the access token expires, Unix milliseconds; None: never said."""

    access_token: str = msgspec.field(name="a")
    expires_at: int | None = msgspec.field(name="e", default=None)
    refresh_token: str | None = msgspec.field(name="r", default=None)
    id_token: str | None = msgspec.field(name="i", default=None)
    scope: str | None = msgspec.field(name="s", default=None)
    provider: str = msgspec.field(name="p", default="default")


class TokenVault:
    """Seals and opens token sets. Bound to the user: a vault moved into somebody else's session does not open there."""

    def __init__(self, sealing: SealingKeys) -> None:
        self._sealing = sealing

    def seal(self, tokens: TokenSet, identity: Identity) -> bytes:
        """Return what goes into the session's vault."""
        return self._sealing.seal(msgspec.msgpack.encode(tokens), context=_context(identity))

    def open(self, sealed: bytes, identity: Identity | None) -> TokenSet | None:
        """Return the tokens, or None: there are none, the keys were retired, or the vault is not this user's."""
        if identity is None or not sealed:
            return None
        plain = self._sealing.unseal(sealed, context=_context(identity))
        try:
            return None if plain is None else msgspec.msgpack.decode(plain, type=TokenSet)
        except msgspec.MsgspecError:
            return None


def _context(identity: Identity) -> str:
    return f"oidc-tokens:{identity.user_key}"
