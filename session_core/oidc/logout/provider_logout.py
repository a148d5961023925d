"""Ends sessions by order of the provider: back-channel (a signed token) or front-channel (a frame in the browser).

A login in progress during the logout must not survive; see `session_core.sessions.logout_marks`.
"""

from __future__ import annotations

from session_core.errors import LogoutTokenError
from session_core.identity import Identity, op_session_key
from session_core.oidc.connection import ProviderConnection
from session_core.oidc.logout.logout_token import REPLAY_SECONDS, ExpectedLogoutToken, LogoutOrder, validate_logout_token
from session_core.oidc.provider.openid import SIGNING_ALGORITHMS, OidcProvider
from session_core.oidc.verify.jws import parse_jws
from session_core.stores.base import SessionIndex

__all__ = ("ProviderLogout",)


class ProviderLogout:
    """Handles logouts by one provider. Every method may raise `StoreUnavailableError`."""

    def __init__(self, connection: ProviderConnection) -> None:
        self._connection = connection
        self._sessions = connection.sessions

    async def by_token(self, logout_token: str) -> LogoutOrder:
        """Carry out a back-channel logout.

        Raises `LogoutTokenError`, or `DiscoveryError`; after an outage on either side the provider may send it again.
        """
        provider = self._connection.provider
        if not isinstance(provider, OidcProvider):
            raise LogoutTokenError("not_openid")
        # Sends no request to the provider for a message that any client can send.
        parse_jws(logout_token, algorithms=SIGNING_ALGORITHMS, error=LogoutTokenError)
        metadata = await self._connection.discovery.metadata(unsolicited=True)
        expected = ExpectedLogoutToken(
            issuer_of=provider.issuer_of,
            several_issuers=bool(provider.tenants),
            skew=provider.clock_tolerance_seconds,
            client_id=provider.client_id,
            algorithms=provider.accepted_algorithms(metadata.id_token_signing_alg_values_supported),
            jwks_uri=metadata.jwks_uri,
            now=self._connection.clock.now() / 1000,
            typ_required=provider.logout_token_typ == "strict",  # noqa: S105 - a mode
            exp_required=provider.logout_token_typ == "strict",  # noqa: S105 - a mode
        )
        order = await validate_logout_token(logout_token, expected, self._connection.keys)
        if await self._sessions.store.claimed_until(order.replay_key) is not None:
            raise LogoutTokenError("jti_replayed")
        if order.sid is not None:
            await self._sessions.end_op_session(
                order.issuer, order.sid, subject=order.subject, iat=order.iat, reason="backchannel_logout"
            )
        elif provider.subject_claim != "sub":
            # Users are identified by another claim here, and the token has only `sub`.
            raise LogoutTokenError("sid_missing")
        elif order.subject is not None:
            user = Identity(issuer=order.issuer, subject=order.subject)
            await self._sessions.end_user(user, iat=order.iat, reason="backchannel_logout")
        # Claimed last: if the store fails before this, the provider can send the same token again. Two concurrent copies both end
        # the sessions, which has the effect of one.
        await self._sessions.claim(order.replay_key, seconds=REPLAY_SECONDS)
        return order

    async def by_frame(self, issuer: str, sid: str) -> None:
        """Carry out a front-channel logout of a session of `issuer`, which is this provider's.

        Any client can send such a request, so an unknown `sid` stores nothing and only emits an event.
        """
        matched = bool(await self._sessions.store.find(SessionIndex(op_session=op_session_key(issuer, sid))))
        if matched:
            await self._sessions.end_op_session(issuer, sid, reason="frontchannel_logout")
        await self._sessions.events.emit("logout.frontchannel", reason="sid" if matched else "no_session")
