"""Codes and tokens: issue, redeem once, rotate, revoke; independent of HTTP and Authlib."""

from typing import Final

from auth_demo.op.settings import Lifetimes
from auth_demo.op.state.expiring import Clock, ExpiringMap
from auth_demo.op.state.records import AccessToken, AuthorizationCode, Grant, OpSession, RefreshToken
from auth_demo.op.state.secret import digest, new_secret

__all__ = ("GrantStore",)

_CAPACITY: Final = 20_000


class GrantStore:
    """Keeps every code and token under its digest; all methods are synchronous, so each is atomic here."""

    def __init__(self, clock: Clock, lifetimes: Lifetimes) -> None:
        self._clock = clock
        self._lifetimes = lifetimes
        self._codes = ExpiringMap[AuthorizationCode](clock, lifetime=lifetimes.code, capacity=_CAPACITY)
        # A spent code is remembered as long as the tokens it gave may live: a replay must still revoke them.
        self._spent = ExpiringMap[Grant](clock, lifetime=lifetimes.refresh_token, capacity=_CAPACITY)
        self._access = ExpiringMap[AccessToken](clock, lifetime=lifetimes.access_token, capacity=_CAPACITY)
        self._refresh = ExpiringMap[RefreshToken](clock, lifetime=lifetimes.refresh_token, capacity=_CAPACITY)

    def open_grant(self, session: OpSession, *, client_id: str, scope: str, acr: str) -> Grant:
        """Start the token family of one authorization; it ends for good after the refresh lifetime."""
        return Grant(
            client_id=client_id,
            sub=session.sub,
            sid=session.sid,
            scope=scope,
            auth_time=session.auth_time,
            acr=acr,
            amr=session.amr,
            session=session,
            expires_at=self._clock() + self._lifetimes.refresh_token,
        )

    def issue_code(self, code: AuthorizationCode) -> str:
        """Store `code` and return its secret value."""
        value = new_secret()
        self._codes.put(digest(value), code)
        return value

    def redeem_code(self, value: str, client_id: str) -> AuthorizationCode | None:
        """Return what the code stands for, the first time its own client presents it, else ``None``.

        A second presentation by that client revokes everything issued from the code (RFC 6749 4.1.2). The code is
        spent even if a later check fails, so a PKCE verifier cannot be guessed at. A code presented by
        another client is left alone: otherwise any client could void the logins of others.
        """
        key = digest(value)
        spent = self._spent.get(key)
        if spent is not None and spent.client_id == client_id:
            spent.revoked = True
            return None
        code = self._codes.get(key)
        if code is None or code.grant.client_id != client_id:
            return None
        self._codes.pop(key)
        self._spent.put(key, code.grant)
        # Signed out between authorization and redemption: nothing may start then, offline access included.
        return code if self.is_live(code.grant) and not code.grant.session.ended else None

    def issue_access_token(self, value: str, grant: Grant, scope: str) -> None:
        """Make the access token `value` usable with `scope` until it expires or the grant is revoked."""
        self._access.put(digest(value), AccessToken(grant=grant, scope=scope))

    def issue_refresh_token(self, value: str, grant: Grant) -> None:
        """Make the refresh token `value` usable once."""
        self._refresh.put(digest(value), RefreshToken(grant=grant))

    def find_access_token(self, value: str) -> AccessToken | None:
        """Return the access token if it is neither expired nor revoked."""
        token = self._access.get(digest(value))
        return token if token is not None and self.is_live(token.grant) else None

    def redeem_refresh_token(self, value: str, client_id: str) -> RefreshToken | None:
        """Return the unused refresh token of `client_id`; a used one revokes its family (RFC 9700 4.14.2)."""
        token = self._refresh.get(digest(value))
        if token is None or token.grant.client_id != client_id:
            return None
        if token.used:
            token.grant.revoked = True
        return token if self.is_live(token.grant) else None

    def find_any_token(self, value: str) -> AccessToken | RefreshToken | None:
        """Return the access or refresh token `value`, used or not, for revocation."""
        return self._refresh.get(digest(value)) or self._access.get(digest(value))

    def drop_access_token(self, value: str) -> None:
        """Forget one access token; the rest of its family stays."""
        self._access.pop(digest(value))

    def revoke_session(self, sid: str) -> None:
        """Revoke every grant of the provider session `sid` that has no offline access."""
        for grant in [spent for spent in self._spent.values() if spent.sid == sid and not spent.offline]:
            grant.revoked = True

    def is_live(self, grant: Grant) -> bool:
        """Tell whether codes and tokens of `grant` may still be used."""
        if grant.revoked or grant.expires_at <= self._clock():
            return False
        return grant.offline or not grant.session.ended
