"""The one-time code between a native client's browser and the client: issued, redeemed once. Independent of HTTP.

The result of a login is stored, sealed, for one minute as a session without a user. Only the code holds its id. Redeeming the
code moves that session to a new id, as every login does: one atomic step on every store, so of many requests with one code at
most one gets a token. The code is sealed and holds the PKCE challenge: without the verifier it is refused without a store call.
"""

from __future__ import annotations

from typing import Final

import msgspec

from session_core.errors import IdTokenError, NativeLoginError
from session_core.identity import Identity
from session_core.ids import SecretStruct, handle_of, new_session_id, session_key
from session_core.oidc.config import OidcConfig
from session_core.oidc.login.native_request import NativeRequest, TokenRequest
from session_core.oidc.relying_party import FinishedLogin
from session_core.sessions.manager import SessionManager
from session_core.sessions.record import SessionRecord, UndecodableError
from session_core.sessions.snapshot import Snapshot, entry_of, snapshot_of

__all__ = ("NativeLogins",)

_CODE_MS: Final = 60_000
_CODE_CONTEXT: Final = "native code"


class _Code(SecretStruct, frozen=True, array_like=True):
    session_id: str
    code_challenge: str


class _Pending(SecretStruct, frozen=True, array_like=True):
    request: NativeRequest
    finished: FinishedLogin


class NativeLogins:
    """Issues and redeems the codes of an application."""

    def __init__(self, config: OidcConfig, sessions: SessionManager) -> None:
        self._sealing = config.sealing
        self._sessions = sessions

    async def issue(self, request: NativeRequest, finished: FinishedLogin) -> str:
        """Return the code of a finished login. Raises `IdTokenError` for claims that cannot be kept, `StoreUnavailableError`."""
        session_id = new_session_id()
        key, now = session_key(session_id), self._sessions.clock.now()
        try:
            plain = msgspec.msgpack.encode(_Pending(request, finished))
        except (OverflowError, ValueError, TypeError):
            raise IdTokenError("claims_malformed") from None
        record = SessionRecord(
            created_at=now,
            absolute_expires_at=now + _CODE_MS,
            vault=self._sealing.seal(plain, context=_context(key)),
        )
        await self._sessions.store.create(key, entry_of(record, now + _CODE_MS))
        return self._sealing.seal_text(_Code(session_id, request.code_challenge), context=_CODE_CONTEXT)

    async def redeem(self, asked: TokenRequest) -> tuple[Snapshot, FinishedLogin]:
        """Return the stored session, for `SessionHandle.take_over`, and the finished login.

        Raises `NativeLoginError` (`invalid_grant`), and `StoreUnavailableError`. A second use of a code ends the session of the
        first (RFC 6749 4.1.2): another party knows code and verifier.
        """
        opened = self._sealing.unseal_text(asked.code, _Code, context=_CODE_CONTEXT)
        if opened is None or not asked.proves(opened.code_challenge):
            raise _invalid("code_malformed" if opened is None else "verifier_mismatch")
        key = session_key(opened.session_id)
        stored = await self._sessions.store.load(key)
        if stored is None:
            await self.withdraw(key)
            raise _invalid("code_used_or_expired")
        try:
            snapshot = snapshot_of(stored)
            plain = self._sealing.unseal(snapshot.record.vault, context=_context(key))
            pending = msgspec.msgpack.decode(plain or b"", type=_Pending)
        except (UndecodableError, msgspec.MsgspecError):
            raise _invalid("code_undecodable") from None
        if (asked.client_id, asked.redirect_uri) != (pending.request.client_id, pending.request.redirect_uri):
            raise _invalid("client_mismatch")
        if await self.is_outdated(snapshot, pending.finished.identity):
            raise _invalid("code_older_than_revocation")
        return snapshot, pending.finished

    async def is_outdated(self, pending: Snapshot, identity: Identity) -> bool:
        """Whether sessions of the user were revoked since the code was issued. Raises `StoreUnavailableError`.

        Otherwise a client that keeps a fresh code logs in again after a revocation, without authentication.
        """
        return await self._sessions.revoked_since(identity, pending.record.created_at)

    async def withdraw(self, key: str) -> bool:
        """End the stored login of a key, or the session made of it; return whether the code was still unused."""
        ended = await self._sessions.store.delete(key)
        for each in ended:
            await self._sessions.events.emit("session.destroyed", handle=handle_of(each), reason="code_withdrawn")
        return key in ended


def _invalid(reason: str) -> NativeLoginError:
    return NativeLoginError(reason, error="invalid_grant")


def _context(key: str) -> str:
    return f"native login:{key}"
