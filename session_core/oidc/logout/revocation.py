"""Revokes tokens at the provider (RFC 7009); its failure or delay never affects a logout.

At a logout, and when a refresh returned tokens for a session that ended meanwhile. Not when an operator or the provider ends
sessions: they decide what happens at the provider.
"""

from __future__ import annotations

import asyncio
from typing import Final

from session_core.errors import OidcError
from session_core.oidc.connection import ProviderConnection
from session_core.oidc.tokens.vault import TokenSet

__all__ = ("Revocation",)

_WAIT_SECONDS: Final = 2.0


class Revocation:
    """Revokes tokens in the background."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    async def revoke(self, connection: ProviderConnection, tokens: TokenSet | None, *, handle: str | None) -> None:
        """Revoke the refresh token or, without one, the access token. Never raises an error of the provider.

        Waits at most two seconds; a slower call continues in the background until its timeout. A failure is the event
        `tokens.revocation_failed`.
        """
        if tokens is None:
            return
        task = asyncio.create_task(_revoke(connection, tokens, handle))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        # Not cancelled with the request: the token must be revoked even if the browser disconnects.
        await asyncio.wait({task}, timeout=_WAIT_SECONDS)

    async def close(self, seconds: float) -> None:
        """Wait for running revocations, at most `seconds`."""
        loop = asyncio.get_running_loop()
        if running := {task for task in self._running if task.get_loop() is loop}:
            await asyncio.wait(running, timeout=seconds)


async def _revoke(connection: ProviderConnection, tokens: TokenSet, handle: str | None) -> None:
    if not connection.provider.revoke_at_logout:
        return
    token, hint = tokens.refresh_token or tokens.access_token, "refresh_token" if tokens.refresh_token else "access_token"
    try:
        metadata = await connection.discovery.metadata()
        if metadata.revocation_endpoint is None:
            return
        await connection.token_endpoint.revoke(metadata, token=token, hint=hint)
    except OidcError as error:
        await connection.sessions.events.emit("tokens.revocation_failed", handle=handle, reason=error.reason)
